//! From alerts to a centre: kept on disk, sent most severe first, removed when the centre says it has them.

pub mod forward;
pub mod identity;
pub mod spool;
pub mod wire;
