//! Sigma rules, compiled. (skeleton: the rules room replaces it)
use crate::alert::RuleRef;
use crate::event::field::{FieldId, Fields};
use crate::event::logsource::LogSource;
use std::sync::Arc;
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleIndex(pub u32);
#[derive(Debug)]
pub struct Rule {
    pub id: String,
    pub reference: Arc<RuleRef>,
    pub logsource: LogSource,
    pub fold: Vec<FieldId>,
    pub silent: bool,
}
#[derive(Debug)]
pub struct Ruleset {
    pub f: Fields,
    pub r: Vec<Rule>,
}
impl Ruleset {
    pub fn rule(&self, i: RuleIndex) -> &Rule {
        &self.r[i.0 as usize]
    }
    pub fn fields(&self) -> &Fields {
        &self.f
    }
    pub fn group_fields(&self, _: RuleIndex) -> &[(Arc<str>, FieldId)] {
        &[]
    }
}
