//! Sigma rules, compiled. (skeleton)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleIndex(pub u32);
#[derive(Debug)]
pub struct Ruleset {}
