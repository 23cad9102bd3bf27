//! One line of a selection, `field|modifiers: values`, → the tests that it asks for (Sigma 2.1, appendix of modifiers).

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use rsigma_parser::DetectionItem;
use rsigma_parser::Modifier;
use rsigma_parser::SigmaString;
use rsigma_parser::SigmaValue;
use rsigma_parser::SpecialChar;
use rsigma_parser::StringPart;
use rsigma_parser::fieldpath::unescape_brackets;

use crate::detect::rule::encode::base64_offsets;
use crate::detect::rule::encode::spelled;
use crate::detect::rule::encode::with_dashes;
use crate::detect::rule::expression;
use crate::detect::rule::layout::Letters;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;
use crate::detect::rule::matcher::Expr;
use crate::detect::rule::matcher::Number;
use crate::detect::rule::matcher::Order;
use crate::detect::rule::matcher::Part;
use crate::detect::rule::matcher::Test;
use crate::detect::rule::matcher::Within;
use crate::detect::rule::pattern::Patterns;
use crate::detect::rule::pattern::Step;
use crate::detect::rule::pattern::fold;
use crate::event::field::FieldId;
use crate::event::field::Fields;

/// What the modifiers make of a line, once for all its values.
struct Line<'i> {
    item: &'i DetectionItem,
    spot: Spot,
    letters: Letters,
    kind: Kind,
    /// `None`: keywords, without a field.
    field: Option<FieldId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Regex,
    Network,
    Reference,
    Compare(Order),
    Moment(Part, Order),
    Exists,
}

/// Compiles a line. Warnings go to `told`.
pub fn compile(
    item: &DetectionItem,
    selection: &str,
    fields: &mut Fields,
    told: &mut Vec<Fault>,
) -> Result<Expr, Fault> {
    let spot = match &item.field.name {
        Some(name) => Spot::word(&["detection", selection], name),
        None => Spot::key(&["detection", selection]),
    };
    let kind = kind(&item.field.modifiers).map_err(|fault| fault.at(spot.clone()))?;
    let line = Line {
        item,
        letters: if item.field.has_modifier(Modifier::Cased) {
            Letters::Exact
        } else {
            Letters::Folded
        },
        kind,
        field: match &item.field.name {
            Some(name) => Some(intern(fields, &unescape_brackets(name), &spot)?),
            None => None,
        },
        spot,
    };
    if line.field.is_none() && !matches!(kind, Kind::Text | Kind::Regex) {
        return Err(line.fault("a modifier that needs a field"));
    }
    if kind == Kind::Compare(Order::NotEqual)
        && item.values.len() > 1
        && !item.field.has_modifier(Modifier::All)
    {
        told.push(
            Fault::warning("`neq` with several values holds for every value")
                .at(line.spot.clone())
                .hint("write `neq|all` for a value that is none of them"),
        );
    }
    line.tests(fields)
}

fn intern(fields: &mut Fields, name: &str, spot: &Spot) -> Result<FieldId, Fault> {
    fields.intern(name).map_err(|too_many| {
        Fault::new(too_many.to_string())
            .at(spot.clone())
            .hint("the rules ask for too many different fields: load fewer of them")
    })
}

fn kind(modifiers: &[Modifier]) -> Result<Kind, Fault> {
    let mut kind = Kind::Text;
    for modifier in modifiers {
        let wanted = match (modifier, kind) {
            (Modifier::Re, _) => Kind::Regex,
            (Modifier::Cidr, _) => Kind::Network,
            (Modifier::FieldRef, _) => Kind::Reference,
            (Modifier::Exists, _) => Kind::Exists,
            (Modifier::Minute, _) => Kind::Moment(Part::Minute, Order::Equal),
            (Modifier::Hour, _) => Kind::Moment(Part::Hour, Order::Equal),
            (Modifier::Day, _) => Kind::Moment(Part::Day, Order::Equal),
            (Modifier::Week, _) => Kind::Moment(Part::Week, Order::Equal),
            (Modifier::Month, _) => Kind::Moment(Part::Month, Order::Equal),
            (Modifier::Year, _) => Kind::Moment(Part::Year, Order::Equal),
            _ => match (order(*modifier), kind) {
                (Some(order), Kind::Moment(part, Order::Equal)) => {
                    kind = Kind::Moment(part, order);
                    continue;
                }
                (Some(order), _) => Kind::Compare(order),
                (None, _) => continue,
            },
        };
        if kind != Kind::Text {
            return Err(Fault::new("two modifiers that exclude one another"));
        }
        kind = wanted;
    }
    for modifier in modifiers {
        let fits = match modifier {
            Modifier::All | Modifier::Cased => true,
            Modifier::Contains | Modifier::StartsWith | Modifier::EndsWith => {
                matches!(kind, Kind::Text | Kind::Regex | Kind::Reference)
            }
            Modifier::IgnoreCase | Modifier::Multiline | Modifier::DotAll => kind == Kind::Regex,
            Modifier::Expand => matches!(kind, Kind::Text | Kind::Network | Kind::Regex),
            Modifier::Base64
            | Modifier::Base64Offset
            | Modifier::Wide
            | Modifier::Utf16
            | Modifier::Utf16be
            | Modifier::WindAsh => kind == Kind::Text,
            _ => true, // one of those that made the kind
        };
        if !fits {
            let name = format!("{modifier:?}").to_lowercase();
            return Err(Fault::new(format!(
                "the modifier `{name}` does not go with the others"
            )));
        }
    }
    Ok(kind)
}

fn order(modifier: Modifier) -> Option<Order> {
    Some(match modifier {
        Modifier::Gt => Order::Greater,
        Modifier::Gte => Order::GreaterEqual,
        Modifier::Lt => Order::Less,
        Modifier::Lte => Order::LessEqual,
        Modifier::Neq => Order::NotEqual,
        _ => return None,
    })
}

impl Line<'_> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(message).at(self.spot.clone())
    }

    fn has(&self, modifier: Modifier) -> bool {
        self.item.field.has_modifier(modifier)
    }

    fn tests(&self, fields: &mut Fields) -> Result<Expr, Fault> {
        let is_all = self.has(Modifier::All);
        let mut tests = Vec::new();
        let mut texts = Vec::new();
        for value in &self.item.values {
            match self.kind {
                Kind::Text => match self.text(value)? {
                    Ok(patterns) if is_all => tests.push(self.patterns(&patterns)),
                    Ok(patterns) => texts.extend(patterns),
                    Err(test) => tests.push(Expr::Test(Box::new(test))),
                },
                Kind::Compare(Order::NotEqual) => tests.push(self.differs(value)?),
                _ => tests.push(Expr::Test(Box::new(self.other(value, fields)?))),
            }
        }
        if !texts.is_empty() {
            tests.push(self.patterns(&texts));
        }
        Ok(if is_all {
            Expr::all(tests)
        } else {
            Expr::any(tests)
        })
    }

    fn patterns(&self, patterns: &[Vec<Step>]) -> Expr {
        let (letters, patterns) = (self.letters, Patterns::new(patterns));
        Expr::Test(Box::new(match self.field {
            Some(field) => Test::Text {
                field,
                letters,
                patterns,
            },
            None => Test::Keyword { letters, patterns },
        }))
    }

    /// A field that is there and has not this value.
    fn differs(&self, value: &SigmaValue) -> Result<Expr, Fault> {
        let field = self
            .field
            .ok_or_else(|| self.fault("`neq` needs a field"))?;
        let equal = match number(value) {
            Some(number) => Expr::Test(Box::new(Test::Number {
                field,
                order: Order::Equal,
                number,
            })),
            None => match self.text(value)? {
                Ok(patterns) => self.patterns(&patterns),
                Err(test) => Expr::Test(Box::new(test)),
            },
        };
        let present = Expr::Test(Box::new(Test::Present(field)));
        Ok(Expr::All(Box::new([present, Expr::Not(Box::new(equal))])))
    }

    /// Returns the patterns of a value, or the test of a value that is no text.
    fn text(&self, value: &SigmaValue) -> Result<Result<Vec<Vec<Step>>, Test>, Fault> {
        let mut modifiers = self.item.field.modifiers.iter();
        let has_plain_modifiers =
            modifiers.all(|m| matches!(m, Modifier::All | Modifier::Cased | Modifier::Neq));
        let steps = match (value, self.field) {
            (SigmaValue::String(text), _) => self.steps(text)?,
            (SigmaValue::Integer(number), _) => plain(&number.to_string()),
            (SigmaValue::Bool(truth), _) => plain(&truth.to_string()),
            (SigmaValue::Float(number), Some(field)) if has_plain_modifiers => {
                return Ok(Err(Test::Number {
                    field,
                    order: Order::Equal,
                    number: Number::Float(*number),
                }));
            }
            (SigmaValue::Float(number), _) => plain(&number.to_string()),
            (SigmaValue::Null, Some(field)) if has_plain_modifiers => {
                return Ok(Err(Test::Absent(field)));
            }
            (SigmaValue::Null, _) => {
                return Err(self
                    .fault("null goes with no modifier and needs a field")
                    .hint("an empty text is written ''"));
            }
        };
        let mut patterns = vec![steps];
        for modifier in &self.item.field.modifiers {
            patterns = self.modify(*modifier, patterns)?;
        }
        if self.field.is_none() {
            if patterns.iter().any(|steps| !steps.iter().any(is_text)) {
                return Err(self.fault("a keyword without a letter matches every event"));
            }
            for steps in &mut patterns {
                steps.insert(0, Step::Many);
                steps.push(Step::Many);
            }
        }
        if self.letters == Letters::Folded {
            for step in patterns.iter_mut().flatten() {
                if let Step::Text(text) = step {
                    *text = fold(text);
                }
            }
        }
        Ok(Ok(patterns))
    }

    fn steps(&self, text: &SigmaString) -> Result<Vec<Step>, Fault> {
        if self.has(Modifier::Expand) {
            self.check_placeholders(&text.original)?;
        }
        Ok(text
            .parts
            .iter()
            .map(|part| match part {
                StringPart::Plain(text) => Step::Text(text.clone().into_bytes()),
                StringPart::Special(SpecialChar::WildcardMulti) => Step::Many,
                StringPart::Special(SpecialChar::WildcardSingle) => Step::One,
            })
            .collect())
    }

    fn check_placeholders(&self, text: &str) -> Result<(), Fault> {
        let mut parts = text.split('%').skip(1);
        while let (Some(name), Some(_)) = (parts.next(), parts.next()) {
            if !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_-".contains(c))
            {
                return Err(
                    Fault::new(format!("no list for the placeholder `%{name}%`"))
                        .at(self.spot.clone().then(&format!("%{name}%")))
                        .hint(format!(
                            "give its values in the configuration, `placeholders: {{{name}: [...]}}`, or write them into the rule, without `expand`"
                        )),
                );
            }
        }
        Ok(())
    }

    fn modify(
        &self,
        modifier: Modifier,
        patterns: Vec<Vec<Step>>,
    ) -> Result<Vec<Vec<Step>>, Fault> {
        let patterns = spelled(modifier, patterns)
            .ok_or_else(|| self.fault("too many dashes to encode each of their forms"))?;
        let mut modified = Vec::with_capacity(patterns.len());
        for mut steps in patterns {
            match modifier {
                Modifier::Contains => {
                    steps.insert(0, Step::Many);
                    steps.push(Step::Many);
                }
                Modifier::StartsWith => steps.push(Step::Many),
                Modifier::EndsWith => steps.insert(0, Step::Many),
                Modifier::WindAsh => steps = with_dashes(&steps),
                Modifier::Wide => steps = self.wide(&steps, u16::to_le_bytes)?,
                Modifier::Utf16be => steps = self.wide(&steps, u16::to_be_bytes)?,
                Modifier::Utf16 => {
                    steps = self.wide(&steps, u16::to_le_bytes)?;
                    steps.insert(0, Step::Text(b"\xff\xfe".to_vec()));
                }
                Modifier::Base64 => {
                    let encoded = STANDARD.encode(self.bytes(&steps)?);
                    steps = vec![Step::Text(encoded.into_bytes())];
                }
                Modifier::Base64Offset => {
                    modified.extend(base64_offsets(&self.bytes(&steps)?));
                    continue;
                }
                _ => {}
            }
            modified.push(steps);
        }
        Ok(modified)
    }

    fn wide(&self, steps: &[Step], order: fn(u16) -> [u8; 2]) -> Result<Vec<Step>, Fault> {
        let encode = |step: &Step| match step {
            Step::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Step::Text(text.encode_utf16().flat_map(order).collect())),
                Err(_) => Err(self.fault("a text encoded twice")),
            },
            Step::Dash | Step::One | Step::Many => Ok(step.clone()),
        };
        steps.iter().map(encode).collect()
    }

    fn bytes(&self, steps: &[Step]) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        for step in steps {
            match step {
                Step::Text(text) => bytes.extend_from_slice(text),
                _ => {
                    return Err(self
                        .fault("a wildcard in a text that is to be encoded as base64")
                        .hint(r"escape it with \, or put `contains` behind the encoding"));
                }
            }
        }
        if bytes.is_empty() {
            return Err(self.fault("an empty text that is to be encoded as base64"));
        }
        Ok(bytes)
    }

    fn other(&self, value: &SigmaValue, fields: &mut Fields) -> Result<Test, Fault> {
        let text = match value {
            SigmaValue::String(text) => text.original.as_str(),
            _ => "",
        };
        if self.kind == Kind::Regex {
            let SigmaValue::String(_) = value else {
                return Err(self.fault("a regular expression must be a text; put it in quotes"));
            };
            if self.has(Modifier::Expand) {
                self.check_placeholders(text)?;
            }
            let flags = expression::Flags {
                ignores_case: self.has(Modifier::IgnoreCase),
                is_multiline: self.has(Modifier::Multiline),
                dot_takes_all: self.has(Modifier::DotAll),
            };
            let regex = expression::compile(text, flags)
                .map_err(|fault| fault.at(self.spot.clone().then(text)))?;
            return Ok(match self.field {
                Some(field) => Test::Regex { field, regex },
                None => Test::KeywordRegex(regex),
            });
        }
        let field = self
            .field
            .ok_or_else(|| self.fault("a modifier that needs a field"))?;
        match self.kind {
            Kind::Network => self.network(field, text),
            Kind::Reference => {
                let other = match value {
                    SigmaValue::String(name) => name.as_plain(),
                    _ => None,
                };
                let Some(other) = other.filter(|name| !name.is_empty()) else {
                    return Err(self.fault("`fieldref` needs the name of a field"));
                };
                Ok(Test::Reference {
                    field,
                    other: intern(fields, &other, &self.spot)?,
                    letters: self.letters,
                    place: self.place(),
                })
            }
            Kind::Exists => match (value, self.item.values.len()) {
                (SigmaValue::Bool(true), 1) => Ok(Test::Present(field)),
                (SigmaValue::Bool(false), 1) => Ok(Test::Absent(field)),
                _ => Err(self.fault("`exists` needs true or false")),
            },
            Kind::Compare(order) => match number(value) {
                Some(number) => Ok(Test::Number {
                    field,
                    order,
                    number,
                }),
                None => Err(self.fault(format!("`{value}` is no number"))),
            },
            Kind::Moment(part, order) => match number(value) {
                Some(number) => Ok(Test::Moment {
                    field,
                    part,
                    order,
                    number,
                }),
                None => Err(self.fault(format!("`{value}` is no number"))),
            },
            Kind::Text | Kind::Regex => Err(self.fault("a value that fits no modifier")),
        }
    }

    fn place(&self) -> Within {
        let start = self.has(Modifier::StartsWith);
        let end = self.has(Modifier::EndsWith);
        match (self.has(Modifier::Contains) || (start && end), start, end) {
            (true, _, _) => Within::Anywhere,
            (_, true, _) => Within::Start,
            (_, _, true) => Within::End,
            _ => Within::Whole,
        }
    }

    fn network(&self, field: FieldId, text: &str) -> Result<Test, Fault> {
        if self.has(Modifier::Expand) {
            self.check_placeholders(text)?;
        }
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| {
                Fault::new(format!("`{text}` is no network"))
                    .at(self.spot.clone().then(text))
                    .hint("write 10.0.0.0/8 or 2001:db8::/32")
            })?;
        Ok(Test::Network { field, network })
    }
}

fn is_text(step: &Step) -> bool {
    matches!(step, Step::Text(text) if !text.is_empty()) || *step == Step::Dash
}

fn plain(text: &str) -> Vec<Step> {
    vec![Step::Text(text.as_bytes().to_vec())]
}

fn number(value: &SigmaValue) -> Option<Number> {
    match value {
        SigmaValue::Integer(number) => Some(Number::Int(*number)),
        SigmaValue::Float(number) => Some(Number::Float(*number)),
        SigmaValue::String(text) => Number::read(text.original.as_bytes()),
        SigmaValue::Bool(_) | SigmaValue::Null => None,
    }
}
