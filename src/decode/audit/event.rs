//! The events of one joined event: each record by itself for `service: auditd`, with what the call's record says beside
//! it.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::decode::audit::join::Joined;
use crate::decode::audit::line::{self, Pair};
use crate::decode::audit::login::Login;
use crate::decode::audit::socket::{self, Peer};
use crate::decode::audit::table;
use crate::decode::reader;
use crate::event::field::{self, Fields, Unknown};
use crate::event::logsource::LogSources;
use crate::event::{Event, Value};

/// What user and group ids say when there is none.
pub const UNSET: &[u8] = b"4294967295";

/// One record of a joined event, taken apart.
#[derive(Debug)]
pub struct Facts<'e> {
    pub kind: &'e [u8],
    pub raw: &'e [u8],
    pub pairs: Vec<Pair<'e>>,
}

impl<'e> Facts<'e> {
    /// Returns the meaning of a key's first value.
    pub fn get(&self, key: &[u8]) -> Option<Cow<'e, [u8]>> {
        let pair = self.pairs.iter().find(|pair| pair.key == key)?;
        line::meant(pair, false)
    }

    /// Returns a decimal number.
    pub fn number(&self, key: &[u8]) -> Option<u32> {
        let value = self.get(key)?;
        u32::try_from(reader::decimal(&value)?).ok()
    }
}

/// A joined event, taken apart.
#[derive(Debug)]
pub struct Story<'e> {
    pub records: Vec<Facts<'e>>,
    /// Of the system call, by its number or as auditd named it.
    pub call: Option<&'e [u8]>,
    pub arch: Option<&'e [u8]>,
    pub time: Option<Timestamp>,
    pub serial: u32,
    pub node: Option<&'e [u8]>,
    pub cut: bool,
    /// The arguments of `execve`.
    pub arguments: Vec<Cow<'e, [u8]>>,
}

impl<'e> Story<'e> {
    pub fn of(joined: &'e Joined) -> Self {
        let records: Vec<Facts<'e>> = joined
            .parts
            .iter()
            .filter_map(|part| {
                let line = line::read(&part.bytes)?;
                Some(Facts {
                    kind: line.kind,
                    raw: &part.bytes,
                    pairs: line::pairs(line.body).collect(),
                })
            })
            .collect();
        let mut story = Self {
            records,
            call: None,
            arch: None,
            time: joined.stamp.time(),
            serial: joined.stamp.serial,
            node: joined.node.as_deref(),
            cut: joined.cut,
            arguments: Vec::new(),
        };
        story.name_call();
        story.arguments = story.read_arguments();
        story
    }

    pub fn record(&self, kind: &[u8]) -> Option<&Facts<'e>> {
        self.records.iter().find(|facts| facts.kind == kind)
    }

    /// The record of the system call; in the newer kernels io_uring has one of its own.
    pub fn caller(&self) -> Option<&Facts<'e>> {
        self.record(b"SYSCALL").or_else(|| self.record(b"URINGOP"))
    }

    fn name_call(&mut self) {
        let Some(facts) = self.record(b"SYSCALL") else {
            return;
        };
        let value = |key: &[u8]| -> Option<&'e [u8]> {
            let pair = facts.pairs.iter().find(|pair| pair.key == key)?;
            Some(pair.value)
        };
        let arch = value(b"arch").and_then(|hex| table::number(hex, 16));
        let number = value(b"syscall").and_then(|digits| table::number(digits, 10));
        let named = arch
            .zip(number)
            .and_then(|(arch, number)| table::syscall_name(arch, number));
        let arch_named = arch.and_then(table::arch_name);
        let call = value(b"SYSCALL").or(named.map(str::as_bytes));
        let arch = value(b"ARCH").or(arch_named.map(str::as_bytes));
        self.call = call;
        self.arch = arch;
    }

    /// `a0=… a1=…`, where long ones come in pieces: `a1_len=9000 a1[0]=… a1[1]=…`, over several records.
    fn read_arguments(&self) -> Vec<Cow<'e, [u8]>> {
        let mut arguments: Vec<Cow<'e, [u8]>> = Vec::new();
        let executed = self.records.iter().filter(|facts| facts.kind == b"EXECVE");
        for pair in executed.flat_map(|facts| &facts.pairs) {
            let Some(key) = pair.key.strip_prefix(b"a") else {
                continue;
            };
            let index = key.iter().take_while(|b| b.is_ascii_digit()).count();
            let (digits, piece) = key.split_at_checked(index).unwrap_or((key, b""));
            let Some(at) = reader::decimal(digits).and_then(|at| usize::try_from(at).ok()) else {
                continue;
            };
            if !(piece.is_empty() || piece.starts_with(b"[")) || at > arguments.len() {
                continue;
            }
            let value = line::meant(pair, true).unwrap_or_default();
            match arguments.get_mut(at) {
                None => arguments.push(value),
                Some(begun) if !piece.is_empty() => begun.to_mut().extend_from_slice(&value),
                Some(_) => {}
            }
        }
        arguments
    }

    pub fn event<'s>(&'s self, raw: &'s [u8], logsources: LogSources<'s>) -> Event<'s> {
        let mut event = Event::new(raw);
        event.time = self.time;
        event.logsources = logsources;
        if let Some(node) = self.node {
            event.set(field::COMPUTER, node);
        }
        if self.cut {
            event.set(field::DECODE_MARKS, "cut");
        }
        event
    }

    /// Emits each record with its own fields, then the call's that it lacks.
    pub fn tell_records(&self, fields: &Fields, emit: &mut dyn FnMut(&Event<'_>)) {
        let caller = self.caller();
        let mut arguments_told = false;
        for facts in &self.records {
            let is_execve = facts.kind == b"EXECVE";
            if facts.kind == b"EOE" || (is_execve && arguments_told) {
                continue;
            }
            let service = LogSources::of(Some("linux"), &[], &["auditd"]);
            let mut event = self.event(facts.raw, service);
            let mut told = Told::new(fields, &mut event);
            told.set("type", facts.kind);
            told.set("serial", i64::from(self.serial));
            if is_execve {
                arguments_told = true;
                self.tell_arguments(facts, &mut told);
            } else {
                tell(facts, &mut told);
            }
            if std::ptr::eq(facts, caller.unwrap_or(facts)) {
                self.tell_call(&mut told);
            } else if let Some(caller) = caller {
                self.tell_common(facts, caller, &mut told);
            }
            if let Some(login) = Login::of(facts) {
                login.set(&mut event);
            }
            emit(&event);
        }
    }

    fn tell_arguments<'s>(&'s self, facts: &Facts<'s>, told: &mut Told<'_, 's>) {
        if let Some(count) = facts.get(b"argc") {
            told.set("argc", count);
        }
        for (at, argument) in self.arguments.iter().enumerate() {
            told.set(&format!("a{at}"), &**argument);
        }
    }

    fn tell_call<'s>(&'s self, told: &mut Told<'_, 's>) {
        if let Some(call) = self.call {
            told.set_new("SYSCALL", call);
        }
        if let Some(arch) = self.arch {
            told.set_new("ARCH", arch);
        }
    }

    /// What a rule on PATH or EXECVE may ask of the call: who ran what.
    fn tell_common<'s>(&'s self, own: &Facts<'s>, caller: &Facts<'s>, told: &mut Told<'_, 's>) {
        const COMMON: [&[u8]; 12] = [
            b"exe", b"comm", b"key", b"uid", b"euid", b"auid", b"pid", b"ppid", b"ses", b"tty",
            b"success", b"exit",
        ];
        for key in COMMON {
            if own.pairs.iter().all(|pair| pair.key != key) {
                tell_key(caller, key, told);
            }
        }
        for key in [&b"UID"[..], b"EUID", b"AUID"] {
            tell_key(caller, key, told);
        }
        if let Some(cwd) = self.record(b"CWD").filter(|cwd| !std::ptr::eq(*cwd, own)) {
            tell_key(cwd, b"cwd", told);
        }
        self.tell_call(told);
    }
}

/// Sets fields by the names that the trail gives them.
struct Told<'a, 's> {
    fields: &'a Fields,
    event: &'a mut Event<'s>,
}

impl<'a, 's> Told<'a, 's> {
    fn new(fields: &'a Fields, event: &'a mut Event<'s>) -> Self {
        Self { fields, event }
    }

    fn set(&mut self, name: &str, value: impl Into<Value<'s>>) {
        if let Some(id) = self.fields.get(name) {
            self.event.set(id, value);
        } else if self.fields.unknown == Unknown::Keep {
            self.event.set_other(Cow::Owned(name.to_owned()), value);
        }
    }

    /// Sets what the record does not say itself.
    fn set_new(&mut self, name: &str, value: impl Into<Value<'s>>) {
        let is_said = match self.fields.get(name) {
            Some(id) => self.event.has(id),
            None => self.event.others().any(|(other, _)| other == name),
        };
        if !is_said {
            self.set(name, value);
        }
    }
}

fn tell<'s>(facts: &Facts<'s>, told: &mut Told<'_, 's>) {
    for pair in &facts.pairs {
        tell_pair(facts, pair, told);
    }
}

fn tell_key<'s>(facts: &Facts<'s>, key: &[u8], told: &mut Told<'_, 's>) {
    if let Some(pair) = facts.pairs.iter().find(|pair| pair.key == key) {
        tell_pair(facts, pair, told);
    }
}

fn tell_pair<'s>(facts: &Facts<'s>, pair: &Pair<'s>, told: &mut Told<'_, 's>) {
    let (Ok(name), Some(value)) = (std::str::from_utf8(pair.key), line::meant(pair, false)) else {
        return;
    };
    match pair.key {
        b"key" => {
            // `auditctl -F key=… -k key=…` leaves the word in.
            for key in value.split(|&b| b == 1) {
                told.set(name, key.strip_prefix(b"key=").unwrap_or(key).to_vec());
            }
        }
        b"proctitle" => told.set(name, spaced(&value)),
        b"saddr" if facts.kind == b"SOCKADDR" => {
            tell_peer(&value, told);
            told.set(name, value);
        }
        b"auid" | b"old-auid" if &*value == UNSET => {
            told.set_new(if name == "auid" { "AUID" } else { "OLD-AUID" }, "unset");
            told.set(name, value);
        }
        _ => told.set(name, value),
    }
}

/// Names as auditd's enrichment has them: `SADDR={ saddr_fam=inet laddr=… lport=… }`.
fn tell_peer(saddr: &[u8], told: &mut Told<'_, '_>) {
    let Some(peer) = socket::read(saddr) else {
        return;
    };
    told.set_new("saddr_fam", peer.family());
    match peer {
        Peer::Inet { address, port } => {
            told.set_new("laddr", Value::Ip(address));
            told.set_new("lport", port);
        }
        Peer::Unix { path } => told.set_new("path", path),
        Peer::Other { .. } => {}
    }
}

/// Arguments end in NUL.
pub fn spaced(title: &[u8]) -> Vec<u8> {
    let end = title.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
    let title = title.get(..end).unwrap_or_default();
    title
        .iter()
        .map(|&b| if b == 0 { b' ' } else { b })
        .collect()
}
