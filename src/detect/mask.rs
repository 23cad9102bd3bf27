//! Personal identifiers become keyed tokens before anything reaches the disk.
#[derive(Debug, Clone)]
pub struct MaskedText(pub String);
#[derive(Debug, Clone)]
pub struct MaskedFields(pub serde_json::Map<String, serde_json::Value>);
