//! The condition of a correlation: a count compared with numbers, or which rules must have been seen together.

use rsigma_parser::ConditionExpr;
use rsigma_parser::ConditionOperator;
use rsigma_parser::CorrelationCondition;
use rsigma_parser::CorrelationRule;
use rsigma_parser::Quantifier;
use rsigma_parser::SelectorPattern;

use crate::detect::rule::compile::fits;
use crate::detect::rule::correlation::COUNT_MAX;
use crate::detect::rule::correlation::Comparison;
use crate::detect::rule::correlation::Counted;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;
use crate::diagnostic::nearest;

/// How often a condition may name rules, `of` counted by what it stands for: bounds what one event costs.
const REFERENCES_MAX: usize = 1_000;

/// Which rules must have been seen, by their place among the bases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    Seen(usize),
    Not(Box<Presence>),
    All(Vec<Presence>),
    AtLeast(usize, Vec<Presence>),
}

impl Presence {
    pub fn holds(&self, seen: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::Seen(base) => seen(*base),
            Self::Not(part) => !part.holds(seen),
            Self::All(parts) => parts.iter().all(|part| part.holds(seen)),
            Self::AtLeast(wanted, parts) => {
                let held = parts.iter().filter(|part| part.holds(seen));
                held.take(*wanted).count() == *wanted
            }
        }
    }

    fn has_not(&self) -> bool {
        match self {
            Self::Seen(_) => false,
            Self::Not(_) => true,
            Self::All(parts) | Self::AtLeast(_, parts) => parts.iter().any(Self::has_not),
        }
    }
}

/// A comparison with a number.
type Predicate = (Comparison, u64);

/// What a correlation asks of its window.
#[derive(Debug, Default)]
pub struct Condition {
    pub predicates: Vec<Predicate>,
    pub presence: Option<Presence>,
    /// The fields whose values are counted.
    pub values: Vec<String>,
}

impl Condition {
    /// Reads the condition of a correlation over the rules `bases`.
    pub fn read(
        sigma: &CorrelationRule,
        counted: Counted,
        bases: &[&str],
        warnings: &mut Vec<Fault>,
    ) -> Result<Self, Fault> {
        match (&sigma.condition, counted) {
            (CorrelationCondition::Extended(expression), Counted::Rules) => {
                extended(expression, bases, warnings)
            }
            (CorrelationCondition::Extended(_), Counted::Sequence) => {
                Err(Fault::new("an order of rules with a condition over them")
                    .at(spot())
                    .hint("without `condition` all rules must be seen, in their order"))
            }
            (CorrelationCondition::Extended(_), _) => {
                Err(Fault::new("a condition that is no count").at(spot()))
            }
            (
                CorrelationCondition::Threshold {
                    predicates, field, ..
                },
                _,
            ) => {
                let mut predicates: Vec<_> = predicates.iter().map(compared).collect();
                let rules = bases.len() as u64;
                let is_temporal = matches!(counted, Counted::Rules | Counted::Sequence);
                // The parser's word for no condition.
                if is_temporal && predicates == [(Comparison::GreaterEqual, 1)] {
                    predicates = vec![(Comparison::GreaterEqual, rules)];
                }
                if counted == Counted::Sequence && predicates != [(Comparison::GreaterEqual, rules)]
                {
                    return Err(Fault::new("an order of rules with a count")
                        .at(spot())
                        .hint("without `condition` all rules must be seen, in their order"));
                }
                let values = field.clone().unwrap_or_default();
                check_values(counted, &values)?;
                if counted.is_of_numbers() {
                    check_bounds(&predicates)?;
                } else {
                    let highest = if is_temporal { rules } else { COUNT_MAX + 1 };
                    threshold(&predicates, highest, is_temporal, warnings)?;
                }
                Ok(Self {
                    predicates,
                    presence: None,
                    values,
                })
            }
        }
    }
}

fn spot() -> Spot {
    Spot::key(&["correlation", "condition"])
}

fn compared(&(operator, bound): &(ConditionOperator, u64)) -> Predicate {
    let comparison = match operator {
        ConditionOperator::Lt => Comparison::Less,
        ConditionOperator::Lte => Comparison::LessEqual,
        ConditionOperator::Gt => Comparison::Greater,
        ConditionOperator::Gte => Comparison::GreaterEqual,
        ConditionOperator::Eq => Comparison::Equal,
        ConditionOperator::Neq => Comparison::NotEqual,
    };
    (comparison, bound)
}

/// Refuses what no count from 1 to `highest` fulfils.
fn threshold(
    predicates: &[Predicate],
    highest: u64,
    is_temporal: bool,
    warnings: &mut Vec<Fault>,
) -> Result<(), Fault> {
    if let Some((_, bound)) = predicates.iter().find(|(_, bound)| *bound > COUNT_MAX) {
        return Err(Fault::new(format!(
            "a count to {bound}; at most {COUNT_MAX} events are kept"
        ))
        .at(spot()));
    }
    let holds = |count| {
        let mut predicates = predicates.iter();
        predicates.all(|(comparison, bound)| comparison.holds(count, *bound))
    };
    if !(1..=highest).any(holds) {
        return Err(Fault::new("a condition that no count fulfils").at(spot()));
    }
    if holds(1) && is_temporal {
        warnings.push(
            Fault::warning("this condition holds as soon as one of the rules is seen")
                .at(spot())
                .hint("a temporal correlation is over two rules or more"),
        );
    } else if holds(1) {
        warnings.push(
            Fault::warning("this condition holds at the first event already")
                .at(spot())
                .hint("a count is judged at each event, not at the end of a window: use gte or gt"),
        );
    }
    Ok(())
}

/// A double holds whole numbers up to here exactly.
const BOUND_MAX: u64 = 1 << 53;

fn check_bounds(predicates: &[Predicate]) -> Result<(), Fault> {
    match predicates.iter().find(|(_, bound)| *bound > BOUND_MAX) {
        Some((_, bound)) => Err(Fault::new(format!("{bound} is more than {BOUND_MAX}")).at(spot())),
        None => Ok(()),
    }
}

/// Reads which of a hundred is meant.
pub fn percentile(sigma: &CorrelationRule) -> Result<Counted, Fault> {
    let rank = match &sigma.condition {
        CorrelationCondition::Threshold { percentile, .. } => *percentile,
        CorrelationCondition::Extended(_) => None,
    };
    let rank = rank.and_then(|rank| u8::try_from(rank).ok());
    match rank.filter(|rank| (1..=100).contains(rank)) {
        Some(rank) => Ok(Counted::Percentile(rank)),
        None => Err(
            Fault::new("`value_percentile` needs a `percentile` from 1 to 100")
                .at(spot())
                .hint("condition: {field: Bytes, percentile: 95, gte: 1000000}"),
        ),
    }
}

fn check_values(counted: Counted, values: &[String]) -> Result<(), Fault> {
    match (counted, values.is_empty()) {
        (Counted::Values, true) => Err(Fault::new("`value_count` needs the field to count")
            .at(spot())
            .hint("condition: {field: TargetUserName, gte: 10}")),
        (Counted::Events, false) => Err(Fault::new(
            "`event_count` counts events, not values of a field",
        )
        .at(spot())
        .hint("remove `field`, or use `type: value_count`")),
        (Counted::Rules | Counted::Sequence, false) => Err(Fault::new(
            "a temporal correlation is over rules, not values of a field",
        )
        .at(spot())
        .hint("remove `field`, or use `type: value_count`")),
        (Counted::Events | Counted::Rules | Counted::Sequence, true) => Ok(()),
        (Counted::Values, false) => Ok(()),
        _ if values.len() == 1 => Ok(()),
        _ => Err(
            Fault::new("numbers of which one field? It is missing, or there are several")
                .at(spot())
                .hint("condition: {field: Bytes, gte: 1000000}"),
        ),
    }
}

fn extended(
    expression: &ConditionExpr,
    bases: &[&str],
    warnings: &mut Vec<Fault>,
) -> Result<Condition, Fault> {
    let mut resolver = Resolver {
        bases,
        references: 0,
    };
    let presence = resolver.resolve(expression)?;
    if presence.has_not() {
        warnings.push(
            Fault::warning(
                "`not` looks at what was seen so far: what comes later takes nothing back",
            )
            .at(spot()),
        );
    }
    if (0..bases.len()).any(|one| presence.holds(&|base| base == one)) {
        warnings.push(
            Fault::warning("this condition holds as soon as one of the rules is seen").at(spot()),
        );
    }
    Ok(Condition {
        presence: Some(presence),
        ..Condition::default()
    })
}

struct Resolver<'r> {
    bases: &'r [&'r str],
    references: usize,
}

impl Resolver<'_> {
    /// Walks a condition; its depth was bounded when it was read.
    fn resolve(&mut self, expression: &ConditionExpr) -> Result<Presence, Fault> {
        match expression {
            ConditionExpr::And(parts) => Ok(Presence::All(self.each(parts)?)),
            ConditionExpr::Or(parts) => Ok(Presence::AtLeast(1, self.each(parts)?)),
            ConditionExpr::Not(part) => Ok(Presence::Not(Box::new(self.resolve(part)?))),
            ConditionExpr::Identifier(name) => self.named(name),
            ConditionExpr::Selector {
                quantifier,
                pattern,
            } => self.selected(quantifier, pattern),
        }
    }

    fn each(&mut self, parts: &[ConditionExpr]) -> Result<Vec<Presence>, Fault> {
        parts.iter().map(|part| self.resolve(part)).collect()
    }

    fn named(&mut self, name: &str) -> Result<Presence, Fault> {
        self.count(1)?;
        let at = self.bases.iter().position(|base| *base == name);
        at.map(Presence::Seen).ok_or_else(|| {
            let near = nearest(name, self.bases.iter().copied());
            Fault::new(format!(
                "the condition names `{name}`, which `rules` does not"
            ))
            .at(Spot::word(&["correlation", "condition"], name))
            .hint(near.map_or_else(
                || format!("it may name {}", self.bases.join(", ")),
                |near| format!("did you mean `{near}`?"),
            ))
        })
    }

    fn selected(
        &mut self,
        quantifier: &Quantifier,
        pattern: &SelectorPattern,
    ) -> Result<Presence, Fault> {
        let is_meant = |name: &str| match pattern {
            SelectorPattern::Them => true,
            SelectorPattern::Pattern(pattern) => fits(pattern, name),
        };
        let bases = self.bases.iter().enumerate();
        let parts: Vec<_> = bases
            .filter(|(_, base)| is_meant(base))
            .map(|(at, _)| Presence::Seen(at))
            .collect();
        self.count(parts.len())?;
        let wanted = match quantifier {
            Quantifier::Any => 1,
            Quantifier::All => parts.len().max(1),
            Quantifier::Count(wanted) => usize::try_from(*wanted).unwrap_or(usize::MAX),
        };
        if !(1..=parts.len()).contains(&wanted) {
            let message = format!("`of {pattern}`, which stands for {} rules", parts.len());
            return Err(Fault::new(message).at(spot()));
        }
        Ok(Presence::AtLeast(wanted, parts))
    }

    fn count(&mut self, references: usize) -> Result<(), Fault> {
        self.references += references;
        if self.references > REFERENCES_MAX {
            let message = format!("a condition that names more than {REFERENCES_MAX} rules");
            return Err(Fault::new(message).at(spot()));
        }
        Ok(())
    }
}
