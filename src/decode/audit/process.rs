//! Which program a process runs: for `ParentImage`, which the audit trail does not have.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Path of the executable.
    pub image: Arc<[u8]>,
    /// Arguments joined by spaces; empty when unknown.
    pub command: Arc<[u8]>,
}

/// Asks the running system for a process that lived at that time. Only where records are fresh.
pub type Lookup = Arc<dyn Fn(u32, Timestamp) -> Option<Program> + Send + Sync>;

/// Processes kept. A busy host starts some hundred programs a second; a parent that matters is younger than a minute.
const PROCESSES_MAX: usize = 16_384;
/// Bytes kept of a command line: what rules ask of a parent's stands at its beginning.
const COMMAND_MAX: usize = 1024;
const IMAGE_MAX: usize = 1024;

/// Programs by process, the oldest forgotten first: at most 16,384 of 2 KiB.
#[derive(Debug, Default)]
pub struct Processes {
    programs: HashMap<u32, (u64, Program)>,
    order: VecDeque<(u32, u64)>,
    count: u64,
}

impl Processes {
    pub fn started(&mut self, pid: u32, image: &[u8], command: &[u8]) {
        let head = |bytes: &[u8], most| bytes.get(..most).unwrap_or(bytes).into();
        let program = Program {
            image: head(image, IMAGE_MAX),
            command: head(command, COMMAND_MAX),
        };
        self.insert(pid, program);
    }

    /// A child runs its parent's program until it starts another.
    pub fn forked(&mut self, parent: u32, child: u32) {
        if let Some(program) = self.get(parent).cloned() {
            self.insert(child, program);
        }
    }

    pub fn ended(&mut self, pid: u32) {
        self.programs.remove(&pid);
    }

    pub fn get(&self, pid: u32) -> Option<&Program> {
        self.programs.get(&pid).map(|(_, program)| program)
    }

    fn insert(&mut self, pid: u32, program: Program) {
        self.count += 1;
        self.programs.insert(pid, (self.count, program));
        self.order.push_back((pid, self.count));
        while self.order.len() > PROCESSES_MAX {
            if let Some((pid, count)) = self.order.pop_front()
                && self.programs.get(&pid).is_some_and(|(at, _)| *at == count)
            {
                self.programs.remove(&pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_runs_what_its_parent_ran_until_it_starts_another() {
        let mut processes = Processes::default();
        processes.started(1, b"/bin/sh", b"sh -c x");
        processes.forked(1, 2);
        assert_eq!(&*processes.get(2).unwrap().image, b"/bin/sh");
        processes.started(2, b"/bin/ls", b"ls");
        assert_eq!(&*processes.get(2).unwrap().image, b"/bin/ls");
        processes.ended(2);
        assert_eq!(processes.get(2), None);
        processes.forked(9, 10);
        assert_eq!(processes.get(10), None, "an unknown parent gives nothing");
    }

    #[test]
    fn the_oldest_is_forgotten_and_the_table_stays_bounded() {
        let mut processes = Processes::default();
        let last = u32::try_from(PROCESSES_MAX).unwrap() * 2;
        for pid in 0..=last {
            processes.started(pid, b"/bin/x", b"");
            processes.started(1, b"/sbin/init", b"");
        }
        assert!(processes.order.len() <= PROCESSES_MAX);
        assert!(processes.programs.len() <= PROCESSES_MAX);
        assert!(processes.get(1).is_some());
        assert!(processes.get(0).is_none());
    }
}
