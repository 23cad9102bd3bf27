//! What a joined event means, under the names that rules for any host use: `process_creation`, `file_event`,
//! `file_delete` and `network_connection`.

use std::borrow::Cow;

use crate::decode::audit::event::{Facts, Story, UNSET, spaced};
use crate::decode::audit::socket::{self, Peer};
use crate::decode::audit::table;
use crate::event::field;
use crate::event::logsource::LogSources;
use crate::event::{Event, Value};

impl Story<'_> {
    /// Emits what the event means, under the names that rules for any host use. `raw` is the text of all its records.
    pub fn tell_meaning(
        &self,
        raw: &[u8],
        parent: Option<(&[u8], &[u8])>,
        emit: &mut dyn FnMut(&Event<'_>),
    ) {
        let Some(caller) = self.caller() else {
            return;
        };
        let call = self.call.unwrap_or_default();
        let failed = caller.get(b"success").is_some_and(|said| &*said == b"no");
        match call {
            b"execve" | b"execveat" if !failed => self.tell_process(raw, caller, parent, emit),
            b"connect" | b"accept" | b"accept4" | b"sendto" | b"socketcall" => {
                let in_progress = caller.get(b"exit").is_some_and(|exit| &*exit == b"-115");
                if !failed || in_progress {
                    self.tell_connection(raw, caller, call, emit);
                }
            }
            _ if !failed => self.tell_files(raw, caller, call, emit),
            _ => {}
        }
    }

    fn tell_process(
        &self,
        raw: &[u8],
        caller: &Facts<'_>,
        parent: Option<(&[u8], &[u8])>,
        emit: &mut dyn FnMut(&Event<'_>),
    ) {
        let command = self.command_line();
        let mut event = self.event(
            raw,
            LogSources::of(Some("linux"), &["process_creation"], &[]),
        );
        who(caller, &mut event);
        if !command.is_empty() {
            event.set(field::COMMAND_LINE, command);
        }
        if let Some(cwd) = self.record(b"CWD").and_then(|facts| facts.get(b"cwd")) {
            event.set(field::CURRENT_DIRECTORY, cwd);
        }
        if let Some((image, command)) = parent {
            if !image.is_empty() {
                event.set(field::PARENT_IMAGE, image);
            }
            if !command.is_empty() {
                event.set(field::PARENT_COMMAND_LINE, command);
            }
        }
        emit(&event);
    }

    /// Emits a program that the process connector saw starting.
    pub fn tell_started(&self, emit: &mut dyn FnMut(&Event<'_>)) {
        let Some(facts) = self.records.first() else {
            return;
        };
        let mut event = self.event(
            facts.raw,
            LogSources::of(Some("linux"), &["process_creation"], &[]),
        );
        who(facts, &mut event);
        for (key, id) in [
            (&b"cmdline"[..], field::COMMAND_LINE),
            (b"cwd", field::CURRENT_DIRECTORY),
            (b"ppexe", field::PARENT_IMAGE),
            (b"ppcmd", field::PARENT_COMMAND_LINE),
        ] {
            if let Some(value) = facts.get(key) {
                event.set(id, value);
            }
        }
        emit(&event);
    }

    /// Returns the arguments joined by spaces; PROCTITLE, which the kernel cuts at 128 bytes, where there are none.
    pub fn command_line(&self) -> Vec<u8> {
        if !self.arguments.is_empty() {
            let parts: Vec<&[u8]> = self.arguments.iter().map(|argument| &**argument).collect();
            return parts.join(&b' ');
        }
        let title = self
            .record(b"PROCTITLE")
            .and_then(|facts| facts.get(b"proctitle"));
        title.map(|title| spaced(&title)).unwrap_or_default()
    }

    fn tell_connection(
        &self,
        raw: &[u8],
        caller: &Facts<'_>,
        call: &[u8],
        emit: &mut dyn FnMut(&Event<'_>),
    ) {
        let peer = self
            .record(b"SOCKADDR")
            .and_then(|facts| facts.get(b"saddr"))
            .and_then(|saddr| socket::read(&saddr));
        let Some(Peer::Inet { address, port }) = peer else {
            return;
        };
        // The i386 call for all of them says which in its first argument (include/uapi/linux/net.h).
        let code = caller.get(b"a0").filter(|_| call == b"socketcall");
        let accepts = match code.as_deref() {
            Some(b"5" | b"12") => true,
            Some(b"3" | b"b") => false,
            Some(_) => return,
            None => call.starts_with(b"accept"),
        };
        let mut event = self.event(
            raw,
            LogSources::of(Some("linux"), &["network_connection"], &[]),
        );
        who(caller, &mut event);
        event.set(field::INITIATED, if accepts { "false" } else { "true" });
        if accepts {
            event.set(field::SOURCE_IP, Value::Ip(address));
            event.set(field::SOURCE_PORT, port);
        } else {
            event.set(field::DESTINATION_IP, Value::Ip(address));
            event.set(field::DESTINATION_PORT, port);
        }
        if call == b"sendto" {
            event.set(field::PROTOCOL, "udp");
        }
        emit(&event);
    }

    /// Files that were made, written to or removed, one event each.
    fn tell_files(
        &self,
        raw: &[u8],
        caller: &Facts<'_>,
        call: &[u8],
        emit: &mut dyn FnMut(&Event<'_>),
    ) {
        let cwd = self.record(b"CWD").and_then(|facts| facts.get(b"cwd"));
        let writes = writes(caller, call);
        for path in self.records.iter().filter(|facts| facts.kind == b"PATH") {
            let category = match path.get(b"nametype").as_deref() {
                Some(b"CREATE") => "file_event",
                Some(b"DELETE") => "file_delete",
                Some(b"NORMAL") if writes => "file_event",
                _ => continue,
            };
            let Some(name) = path.get(b"name") else {
                continue;
            };
            let mut event = self.event(raw, LogSources::of(Some("linux"), &[category], &[]));
            who(caller, &mut event);
            event.set(field::TARGET_FILENAME, full_path(&name, cwd.as_deref()));
            emit(&event);
        }
    }
}

/// Whether a call that names an existing file changes it: open(2) for writing, truncate(2).
fn writes(caller: &Facts<'_>, call: &[u8]) -> bool {
    let flags = match call {
        b"open" => caller.get(b"a1"),
        b"openat" => caller.get(b"a2"),
        b"creat" | b"truncate" | b"truncate64" => return true,
        _ => None,
    };
    // O_ACCMODE, O_CREAT and O_TRUNC are the same on all architectures of the tables (asm-generic/fcntl.h).
    let flags = flags.and_then(|hex| table::number(&hex, 16));
    flags.is_some_and(|flags| flags & 0o3 != 0 || flags & (0o100 | 0o1000) != 0)
}

/// Returns a path from the root, without `.` and `..`.
fn full_path(name: &[u8], cwd: Option<&[u8]>) -> Vec<u8> {
    let cwd = cwd.filter(|_| !name.starts_with(b"/")).unwrap_or_default();
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in cwd.split(|&b| b == b'/').chain(name.split(|&b| b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let rooted = name.starts_with(b"/") || cwd.starts_with(b"/");
    let mut path = if rooted { b"/".to_vec() } else { Vec::new() };
    path.extend(parts.join(&b'/'));
    path
}

/// Who ran what, under the names of process events.
fn who(caller: &Facts<'_>, event: &mut Event<'_>) {
    if let Some(exe) = caller.get(b"exe") {
        let image = exe.strip_suffix(b" (deleted)").unwrap_or(&exe);
        event.set(field::IMAGE, image.to_vec());
    }
    for (key, id) in [
        (&b"pid"[..], field::PROCESS_ID),
        (b"ppid", field::PARENT_PROCESS_ID),
    ] {
        if let Some(number) = caller.number(key) {
            event.set(id, i64::from(number));
        }
    }
    if let Some(user) = user(caller) {
        event.set(field::USER, user.into_owned());
    }
    if let Some(session) = caller.get(b"ses").filter(|ses| &**ses != UNSET) {
        event.set(field::LOGON_ID, session.into_owned());
    }
}

/// Returns the account by name where the trail has names; root has the same number everywhere.
fn user<'e>(caller: &Facts<'e>) -> Option<Cow<'e, [u8]>> {
    if let Some(name) = caller.get(b"UID") {
        return Some(name);
    }
    let uid = caller.get(b"uid")?;
    Some(if &*uid == b"0" {
        Cow::Borrowed(b"root")
    } else {
        uid
    })
}
