//! `action: global|reset|repeat`: documents of a file that are merged into others.

use serde_yaml::Value;

use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;

/// What the documents so far leave for the next.
#[derive(Default)]
pub struct Actions {
    global: Option<Value>,
    previous: Option<Value>,
}

impl Actions {
    /// Returns the document to read, and whether another was merged into it.
    pub fn apply(&mut self, mut value: Value) -> Result<Option<(Value, bool)>, Fault> {
        let Some(mapping) = value.as_mapping_mut() else {
            return Err(Fault::new("a rule is a mapping of keys to values")
                .hint("begin with `title: …`; see the Sigma specification"));
        };
        let action = mapping.remove("action");
        let base = match action.as_ref().map(Value::as_str) {
            None => self.global.clone(),
            Some(Some("global")) => {
                self.global = Some(value);
                return Ok(None);
            }
            Some(Some("reset")) => {
                self.global = None;
                return Ok(None);
            }
            Some(Some("repeat")) => match &self.previous {
                Some(previous) => Some(previous.clone()),
                None => {
                    return Err(Fault::new("`action: repeat` without a document before it")
                        .at(Spot::key(&["action"])));
                }
            },
            Some(_) => {
                return Err(Fault::new("an unknown `action`")
                    .at(Spot::key(&["action"]))
                    .label("expected one of `global`, `reset`, `repeat`"));
            }
        };
        let is_merged = base.is_some();
        let merged = match base {
            Some(base) => merge(base, value),
            None => value,
        };
        self.previous = Some(merged.clone());
        Ok(Some((merged, is_merged)))
    }
}

/// Puts `over` on `base`, mapping by mapping. Both came from a parser that ends at a depth of 128.
fn merge(base: Value, over: Value) -> Value {
    match (base, over) {
        (Value::Mapping(mut base), Value::Mapping(over)) => {
            for (key, value) in over {
                let value = match base.remove(&key) {
                    Some(below) => merge(below, value),
                    None => value,
                };
                base.insert(key, value);
            }
            Value::Mapping(base)
        }
        (_, over) => over,
    }
}
