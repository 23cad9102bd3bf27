//! Which rules an event may match: every need of a plan's rules, looked for at once. Never leaves out a rule that would
//! match; what it names is asked then.
//!
//! `Anywhere`: each text is filed under some of its runs of bytes, so that one of them begins at a multiple of the step
//! that the event is walked with; one bit a step tells whether some text is filed under the run there. `Start` and `End`: the first or last up to eight bytes are a number that is looked up.
//! `Whole`: one look-up.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::detect::rule::frequency;
use crate::detect::rule::layout::{Layout, Letters};
use crate::detect::rule::need::{Need, Place};
use crate::event::Event;
use crate::event::field::{FieldId, Quick};

/// Texts of fewer bytes are not walked for: it is enough that all their bytes stand somewhere.
pub const WALKED_MIN: usize = 4;
/// Texts of as many bytes are filed under four runs of four, those of fewer under two runs of three.
const LONG_MIN: usize = 7;
/// Bytes of a start or an end that are looked up as one number.
const EDGE: usize = 8;

type Table = HashMap<u64, Vec<u32>, BuildHasherDefault<Quick>>;

/// A text of a need, and the rules of the plan that it is a need of.
#[derive(Debug)]
struct Text {
    bytes: Box<[u8]>,
    rules: Box<[u32]>,
}

/// The needs in one field, or in the record.
#[derive(Debug, Default)]
struct Column {
    texts: Vec<Text>,
    present: Vec<u32>,
    /// Texts of less than a run: met where all their bytes stand, wherever.
    short: Vec<Text>,
    whole: Table,
    /// By the number of bytes that are looked up.
    starts: Vec<(usize, Table)>,
    ends: Vec<(usize, Table)>,
    long: Runs,
    short_runs: Runs,
}

/// Texts by runs of their bytes.
#[derive(Debug, Default)]
struct Runs {
    filter: Filter,
    /// A text's number, and where in it the run stands.
    texts: HashMap<u32, Vec<(u32, u32)>, BuildHasherDefault<Quick>>,
}

/// All needs of a plan.
#[derive(Debug, Default)]
pub struct Index {
    columns: Vec<Column>,
    /// The column of a field, plus one; 0 where no rule needs anything of it.
    of_field: Box<[u16]>,
    record: Option<Box<Column>>,
}

/// Returns up to eight bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, &byte| (number << 8) | u64::from(byte))
}

/// Returns a hash of a whole text.
fn hash(text: &[u8]) -> u64 {
    let (chunks, rest) = text.as_chunks::<8>();
    let mut state = (text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for chunk in chunks {
        state = mixed(state ^ u64::from_le_bytes(*chunk));
    }
    mixed(state ^ number(rest))
}

fn mixed(state: u64) -> u64 {
    let product = u128::from(state) * 0xA076_1D64_78BD_642F;
    (product as u64) ^ ((product >> 64) as u64)
}

impl Index {
    /// `needs`: the needs of each rule, by its place in the plan.
    pub fn new(needs: &[(u32, Vec<Need>)]) -> Self {
        let mut by_need: HashMap<&Need, Vec<u32>> = HashMap::new();
        for (rule, needs) in needs {
            for need in needs {
                by_need.entry(need).or_default().push(*rule);
            }
        }
        let mut sorted: Vec<_> = by_need.into_iter().collect();
        sorted.sort_unstable();
        let mut fields: Vec<FieldId> = sorted.iter().filter_map(|(need, _)| need.field).collect();
        fields.dedup();
        let mut index = Self {
            of_field: vec![0; fields.last().map_or(0, |last| last.index() + 1)].into(),
            ..Self::default()
        };
        for field in fields {
            let own = sorted.iter().filter(|(need, _)| need.field == Some(field));
            let column = Column::new(own);
            index.columns.push(column);
            if let Some(slot) = index.of_field.get_mut(field.index()) {
                *slot = u16::try_from(index.columns.len()).unwrap_or(0);
            }
        }
        let own: Vec<_> = sorted
            .iter()
            .filter(|(need, _)| need.field.is_none())
            .collect();
        if !own.is_empty() {
            index.record = Some(Box::new(Column::new(own.into_iter())));
        }
        index
    }

    /// Calls `on` for each rule that the event may match, maybe several times.
    pub fn candidates(&self, event: &Event<'_>, layout: &mut Layout, mut on: impl FnMut(u32)) {
        for slot in layout.slots() {
            let at = self
                .of_field
                .get(slot.field().index())
                .copied()
                .unwrap_or(0);
            let Some(column) = usize::from(at)
                .checked_sub(1)
                .and_then(|at| self.columns.get(at))
            else {
                continue;
            };
            column.look(layout.text(slot, Letters::Folded), &mut on);
        }
        if let Some(column) = &self.record {
            for text in layout.record(event) {
                column.look(text, &mut on);
            }
        }
    }
}

impl Column {
    fn new<'n>(needs: impl Iterator<Item = &'n (&'n Need, Vec<u32>)>) -> Self {
        let mut column = Self::default();
        for (need, rules) in needs {
            if need.place == Place::Present || is_open(need) {
                column.present.extend(rules);
                continue;
            }
            if need.place == Place::Anywhere && need.text.len() < WALKED_MIN {
                column.short.push(Text {
                    bytes: need.text.clone(),
                    rules: rules.as_slice().into(),
                });
                continue;
            }
            let id = u32::try_from(column.texts.len()).unwrap_or(u32::MAX);
            let text = &need.text;
            let edge = text.len().min(EDGE);
            match need.place {
                Place::Whole => column.whole.entry(hash(text)).or_default().push(id),
                Place::Start => {
                    let key = number(text.get(..edge).unwrap_or_default());
                    edges(&mut column.starts, edge)
                        .entry(key)
                        .or_default()
                        .push(id);
                }
                Place::End => {
                    let key = number(text.get(text.len() - edge..).unwrap_or_default());
                    edges(&mut column.ends, edge)
                        .entry(key)
                        .or_default()
                        .push(id);
                }
                Place::Anywhere if text.len() < LONG_MIN => {
                    column.short_runs.file::<3, 2>(id, text)
                }
                Place::Anywhere => column.long.file::<4, 4>(id, text),
                Place::Present => {}
            }
            column.texts.push(Text {
                bytes: text.clone(),
                rules: rules.as_slice().into(),
            });
        }
        column.present.sort_unstable();
        column.present.dedup();
        column.long.seal();
        column.short_runs.seal();
        column
    }

    fn look(&self, text: &[u8], on: &mut impl FnMut(u32)) {
        self.present.iter().for_each(|&rule| on(rule));
        if !self.whole.is_empty()
            && let Some(ids) = self.whole.get(&hash(text))
        {
            self.offer(ids, on, |wanted| wanted.bytes.as_ref() == text);
        }
        for (edge, table) in &self.starts {
            let key = text.get(..*edge).map(number);
            if let Some(ids) = key.and_then(|key| table.get(&key)) {
                self.offer(ids, on, |wanted| text.starts_with(&wanted.bytes));
            }
        }
        for (edge, table) in &self.ends {
            let key = text.len().checked_sub(*edge).and_then(|at| text.get(at..));
            if let Some(ids) = key.map(number).and_then(|key| table.get(&key)) {
                self.offer(ids, on, |wanted| text.ends_with(&wanted.bytes));
            }
        }
        if !self.short.is_empty() {
            self.look_short(text, on);
        }
        self.long.walk::<4, 4>(text, |id, at| {
            self.offer(&[id], on, |wanted| wanted.stands(text, at));
        });
        self.short_runs.walk::<3, 2>(text, |id, at| {
            self.offer(&[id], on, |wanted| wanted.stands(text, at));
        });
    }

    fn look_short(&self, text: &[u8], on: &mut impl FnMut(u32)) {
        let mut seen = [false; 256];
        for &byte in text {
            seen[usize::from(byte)] = true;
        }
        let has = |byte: &u8| seen[usize::from(*byte)];
        for wanted in self
            .short
            .iter()
            .filter(|wanted| wanted.bytes.iter().all(has))
        {
            wanted.rules.iter().for_each(|&rule| on(rule));
        }
    }

    fn offer(&self, ids: &[u32], on: &mut impl FnMut(u32), stands: impl Fn(&Text) -> bool) {
        for text in ids.iter().filter_map(|&id| self.texts.get(id as usize)) {
            if stands(text) {
                text.rules.iter().for_each(|&rule| on(rule));
            }
        }
    }
}

impl Text {
    fn stands(&self, text: &[u8], at: usize) -> bool {
        text.get(at..)
            .is_some_and(|text| text.starts_with(&self.bytes))
    }
}

impl Runs {
    /// Files a text under the `STEP` runs of `RUN` bytes that follow one another at its rarest place: wherever it stands,
    /// one of them begins at a multiple of `STEP`. It is at least `RUN + STEP - 1` bytes long.
    fn file<const RUN: usize, const STEP: usize>(&mut self, id: u32, text: &[u8]) {
        let from = frequency::rarest(text, RUN, STEP);
        for at in from..from + STEP {
            let run = text.get(at..at + RUN).unwrap_or_default();
            let texts = self.texts.entry(number(run) as u32).or_default();
            texts.push((id, u32::try_from(at).unwrap_or(u32::MAX)));
        }
    }

    fn seal(&mut self) {
        self.texts.values_mut().for_each(Vec::shrink_to_fit);
        self.texts.shrink_to_fit();
        self.filter = Filter::new(self.texts.keys().copied());
    }

    /// Calls `on` with each text whose run stands at a multiple of `STEP`, and where the text would begin.
    fn walk<const RUN: usize, const STEP: usize>(&self, text: &[u8], on: impl FnMut(u32, usize)) {
        match &self.filter {
            Filter::None => {}
            Filter::Small(bits) => self.walk_with::<RUN, STEP, _>(bits, text, on),
            Filter::Middle(bits) => self.walk_with::<RUN, STEP, _>(bits, text, on),
            Filter::Large(bits) => self.walk_with::<RUN, STEP, _>(bits, text, on),
        }
    }

    fn walk_with<const RUN: usize, const STEP: usize, const N: usize>(
        &self,
        bits: &[u8; N],
        text: &[u8],
        mut on: impl FnMut(u32, usize),
    ) {
        for (n, run) in text.windows(RUN).step_by(STEP).enumerate() {
            let run = run
                .iter()
                .fold(0, |run, &byte| (run << 8) | u32::from(byte));
            if !has(bits, run) {
                continue;
            }
            for &(id, at) in self.texts.get(&run).into_iter().flatten() {
                if let Some(start) = (n * STEP).checked_sub(at as usize) {
                    on(id, start);
                }
            }
        }
    }
}

/// Whether every value meets it: an empty start or end.
fn is_open(need: &Need) -> bool {
    need.text.is_empty() && need.place != Place::Whole
}

fn edges(tables: &mut Vec<(usize, Table)>, edge: usize) -> &mut Table {
    let at = match tables.iter().position(|(known, _)| *known == edge) {
        Some(at) => at,
        None => {
            tables.push((edge, Table::default()));
            tables.len() - 1
        }
    };
    &mut tables[at].1
}

/// Which runs some text is filed under, a bit a hash: about one step in sixteen is looked up for nothing while there
/// are a sixteenth as many runs as bits.
#[derive(Debug, Default)]
enum Filter {
    #[default]
    None,
    Small(Box<[u8; 1 << 10]>),
    Middle(Box<[u8; 1 << 13]>),
    Large(Box<[u8; 1 << 15]>),
}

impl Filter {
    fn new(runs: impl ExactSizeIterator<Item = u32>) -> Self {
        match runs.len() {
            0 => Self::None,
            1..512 => Self::Small(filled(runs)),
            512..4096 => Self::Middle(filled(runs)),
            _ => Self::Large(filled(runs)),
        }
    }
}

fn filled<const N: usize>(grams: impl Iterator<Item = u32>) -> Box<[u8; N]> {
    let mut bits = Box::new([0; N]);
    for gram in grams {
        let at = spot::<N>(gram);
        bits[at / 8] |= 1 << (at % 8);
    }
    bits
}

fn has<const N: usize>(bits: &[u8; N], gram: u32) -> bool {
    let at = spot::<N>(gram);
    bits[at / 8] & (1 << (at % 8)) != 0
}

/// Below `8 * N`, which is a power of two.
fn spot<const N: usize>(gram: u32) -> usize {
    let bits = (8 * N).trailing_zeros();
    (gram.wrapping_mul(0x9E37_79B1) >> (32 - bits)) as usize & (8 * N - 1)
}
