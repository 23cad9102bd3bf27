//! The names of fields: Sigma's taxonomy as constants, and the interner for all other names.

pub mod network;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use thiserror::Error;

/// The most distinct field names that one ruleset may ask for.
pub const FIELDS_MAX: usize = 2048;

/// Hashes what rules chose, not what a stranger may: no defence against chosen keys, a few nanoseconds instead.
#[derive(Debug, Default, Clone, Copy)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.write_u64(u64::from_le_bytes(*chunk));
        }
        let mut last = [0; 8];
        for (slot, byte) in last.iter_mut().zip(rest) {
            *slot = *byte;
        }
        self.write_u64(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }
}

/// A field's name, interned: dense from 0, so that a set of fields is a row of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(u16);

impl FieldId {
    pub fn index(self) -> usize {
        self.0.into()
    }
}

// who and what, on any host
/// The machine that the event names as its own.
pub const COMPUTER: FieldId = FieldId(0);
/// The program that wrote a syslog line.
pub const PROGRAM: FieldId = FieldId(1);
/// Decimal.
pub const PROCESS_ID: FieldId = FieldId(2);
/// The text behind a syslog header.
pub const MESSAGE: FieldId = FieldId(3);
/// Syslog facility by name, RFC 5424 6.2.1.
pub const FACILITY: FieldId = FieldId(4);
/// Syslog severity by name, RFC 5424 6.2.1.
pub const SEVERITY: FieldId = FieldId(5);
/// The account that acted.
pub const USER: FieldId = FieldId(6);
/// The account that was acted on or logged in to.
pub const TARGET_USER_NAME: FieldId = FieldId(7);
/// `success` or `failure`.
pub const OUTCOME: FieldId = FieldId(8);
/// What was logged in to: sshd, sudo, su, login ….
pub const SERVICE: FieldId = FieldId(9);
/// `password`, `publickey` ….
pub const AUTHENTICATION_METHOD: FieldId = FieldId(10);
/// Address of the side that began.
pub const SOURCE_IP: FieldId = FieldId(11);
pub const SOURCE_PORT: FieldId = FieldId(12);
/// A name where the log gives no address.
pub const SOURCE_HOSTNAME: FieldId = FieldId(13);
pub const DESTINATION_IP: FieldId = FieldId(14);
pub const DESTINATION_PORT: FieldId = FieldId(15);
pub const DESTINATION_HOSTNAME: FieldId = FieldId(16);
/// `tcp`, `udp` ….
pub const PROTOCOL: FieldId = FieldId(17);
/// `true` when this host opened the connection.
pub const INITIATED: FieldId = FieldId(18);
/// Path of the executable.
pub const IMAGE: FieldId = FieldId(19);
pub const COMMAND_LINE: FieldId = FieldId(20);
pub const PARENT_IMAGE: FieldId = FieldId(21);
pub const PARENT_COMMAND_LINE: FieldId = FieldId(22);
pub const CURRENT_DIRECTORY: FieldId = FieldId(23);
pub const LOGON_ID: FieldId = FieldId(24);
pub const TARGET_FILENAME: FieldId = FieldId(25);
/// Sudo: the account that the command ran as.
pub const SUDO_USER: FieldId = FieldId(26);
/// Sudo.
pub const SUDO_TTY: FieldId = FieldId(27);
/// Sudo.
pub const SUDO_PWD: FieldId = FieldId(28);
/// Sudo.
pub const SUDO_COMMAND: FieldId = FieldId(29);
/// Group that an account was put into.
pub const GROUP_NAME: FieldId = FieldId(30);
/// Of `message repeated N times`.
pub const REPEAT_COUNT: FieldId = FieldId(31);

// web, W3C names
pub const CS_METHOD: FieldId = FieldId(32);
/// The path.
pub const CS_URI_STEM: FieldId = FieldId(33);
/// The whole request target: public rules put paths in it.
pub const CS_URI_QUERY: FieldId = FieldId(34);
/// The request target, or the URL in a proxy's log.
pub const C_URI: FieldId = FieldId(35);
pub const CS_VERSION: FieldId = FieldId(36);
pub const SC_STATUS: FieldId = FieldId(37);
pub const SC_BYTES: FieldId = FieldId(38);
pub const C_IP: FieldId = FieldId(39);
pub const CS_USERNAME: FieldId = FieldId(40);
pub const CS_HOST: FieldId = FieldId(41);
pub const CS_REFERER: FieldId = FieldId(42);
pub const CS_REFERRER: FieldId = FieldId(43);
pub const CS_USER_AGENT: FieldId = FieldId(44);
pub const C_USERAGENT: FieldId = FieldId(45);

// DNS
/// The name asked for, lower case, no final dot.
pub const DNS_QUERY: FieldId = FieldId(46);
/// `A`, `TXT` ….
pub const RECORD_TYPE: FieldId = FieldId(47);
pub const DNS_ANSWER: FieldId = FieldId(48);
pub const QUERY_NAME: FieldId = FieldId(49);
pub const ZEEK_ANSWERS: FieldId = FieldId(50);
pub const QTYPE_NAME: FieldId = FieldId(51);
/// Bytes of the name.
pub const QUERY_LENGTH: FieldId = FieldId(52);

// packets
/// `S`, `SA` ….
pub const TCP_FLAGS: FieldId = FieldId(53);
pub const INTERFACE: FieldId = FieldId(54);
pub const VLAN_ID: FieldId = FieldId(55);

// malware scanners, firewalls
pub const SIGNATURE: FieldId = FieldId(56);
pub const FILENAME: FieldId = FieldId(57);
pub const SRC_IP: FieldId = FieldId(58);
pub const SRC_PORT: FieldId = FieldId(59);
pub const DST_IP: FieldId = FieldId(60);
pub const DST_PORT: FieldId = FieldId(61);
pub const ACTION: FieldId = FieldId(62);

// audit
pub const AUDIT_TYPE: FieldId = FieldId(63);
pub const AUDIT_KEY: FieldId = FieldId(64);
pub const AUDIT_EXE: FieldId = FieldId(65);
pub const AUDIT_COMM: FieldId = FieldId(66);

// marks set by decoders
/// What was odd about the record: `cut`, `not-utf8`, `control`, `nul`.
pub const DECODE_MARKS: FieldId = FieldId(67);

// DNS, answers only
/// `NOERROR`, `NXDOMAIN` …; a query has none.
pub const DNS_RCODE: FieldId = FieldId(68);

/// Of the process that started another, decimal.
pub const PARENT_PROCESS_ID: FieldId = FieldId(69);

// Windows
pub const CHANNEL: FieldId = FieldId(70);
/// Decimal.
pub const EVENT_ID: FieldId = FieldId(71);
/// Sysmon: what was done to a registry key.
pub const EVENT_TYPE: FieldId = FieldId(72);

/// Every constant above with its name, in order.
const WELL_KNOWN: &[(FieldId, &str)] = &[
    (COMPUTER, "Computer"),
    (PROGRAM, "Program"),
    (PROCESS_ID, "ProcessId"),
    (MESSAGE, "Message"),
    (FACILITY, "Facility"),
    (SEVERITY, "Severity"),
    (USER, "User"),
    (TARGET_USER_NAME, "TargetUserName"),
    (OUTCOME, "Outcome"),
    (SERVICE, "Service"),
    (AUTHENTICATION_METHOD, "AuthenticationMethod"),
    (SOURCE_IP, "SourceIp"),
    (SOURCE_PORT, "SourcePort"),
    (SOURCE_HOSTNAME, "SourceHostname"),
    (DESTINATION_IP, "DestinationIp"),
    (DESTINATION_PORT, "DestinationPort"),
    (DESTINATION_HOSTNAME, "DestinationHostname"),
    (PROTOCOL, "Protocol"),
    (INITIATED, "Initiated"),
    (IMAGE, "Image"),
    (COMMAND_LINE, "CommandLine"),
    (PARENT_IMAGE, "ParentImage"),
    (PARENT_COMMAND_LINE, "ParentCommandLine"),
    (CURRENT_DIRECTORY, "CurrentDirectory"),
    (LOGON_ID, "LogonId"),
    (TARGET_FILENAME, "TargetFilename"),
    (SUDO_USER, "USER"),
    (SUDO_TTY, "TTY"),
    (SUDO_PWD, "PWD"),
    (SUDO_COMMAND, "COMMAND"),
    (GROUP_NAME, "GroupName"),
    (REPEAT_COUNT, "RepeatCount"),
    (CS_METHOD, "cs-method"),
    (CS_URI_STEM, "cs-uri-stem"),
    (CS_URI_QUERY, "cs-uri-query"),
    (C_URI, "c-uri"),
    (CS_VERSION, "cs-version"),
    (SC_STATUS, "sc-status"),
    (SC_BYTES, "sc-bytes"),
    (C_IP, "c-ip"),
    (CS_USERNAME, "cs-username"),
    (CS_HOST, "cs-host"),
    (CS_REFERER, "cs-referer"),
    (CS_REFERRER, "cs-referrer"),
    (CS_USER_AGENT, "cs-user-agent"),
    (C_USERAGENT, "c-useragent"),
    (DNS_QUERY, "query"),
    (RECORD_TYPE, "record_type"),
    (DNS_ANSWER, "answer"),
    (QUERY_NAME, "QueryName"),
    (ZEEK_ANSWERS, "answers"),
    (QTYPE_NAME, "qtype_name"),
    (QUERY_LENGTH, "QueryLength"),
    (TCP_FLAGS, "TcpFlags"),
    (INTERFACE, "Interface"),
    (VLAN_ID, "VlanId"),
    (SIGNATURE, "Signature"),
    (FILENAME, "Filename"),
    (SRC_IP, "src_ip"),
    (SRC_PORT, "src_port"),
    (DST_IP, "dst_ip"),
    (DST_PORT, "dst_port"),
    (ACTION, "action"),
    (AUDIT_TYPE, "type"),
    (AUDIT_KEY, "key"),
    (AUDIT_EXE, "exe"),
    (AUDIT_COMM, "comm"),
    (DECODE_MARKS, "DecodeMarks"),
    (DNS_RCODE, "rcode"),
    (PARENT_PROCESS_ID, "ParentProcessId"),
    (CHANNEL, "Channel"),
    (EVENT_ID, "EventID"),
    (EVENT_TYPE, "EventType"),
];

#[derive(Debug, PartialEq, Eq, Error)]
#[error("more than {FIELDS_MAX} distinct field names")]
pub struct TooManyFields;

/// Whether a decoder keeps fields that no rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    #[default]
    Drop,
    /// For `replay --events`, which shows every field.
    Keep,
}

/// Names to ids and back. A ruleset carries the one that its rules were compiled with.
#[derive(Debug, Clone)]
pub struct Fields {
    ids: HashMap<Box<str>, FieldId, BuildHasherDefault<Quick>>,
    names: Vec<Box<str>>,
    /// Of the names, in order.
    fingerprint: u64,
    pub unknown: Unknown,
}

impl Default for Fields {
    fn default() -> Self {
        let mut names: Vec<Box<str>> = WELL_KNOWN.iter().map(|&(_, name)| name.into()).collect();
        // Places without a name: nothing asks for them.
        names.resize(network::FIRST.into(), "".into());
        names.extend(network::NAMES.iter().map(|&(_, name)| Box::from(name)));
        Self {
            ids: WELL_KNOWN
                .iter()
                .chain(network::NAMES)
                .map(|&(id, name)| (name.into(), id))
                .collect(),
            names,
            fingerprint: 0,
            unknown: Unknown::Drop,
        }
    }
}

impl Fields {
    /// Differs, but for chance, from that of every other set of names: what was learnt of one set holds for its equals.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Returns the id of a name that some rule or decoder asked for.
    pub fn get(&self, name: &str) -> Option<FieldId> {
        self.ids.get(name).copied()
    }

    /// Returns the id of `name`, made now if it is new.
    pub fn intern(&mut self, name: &str) -> Result<FieldId, TooManyFields> {
        if let Some(id) = self.get(name) {
            return Ok(id);
        }
        if self.names.len() == FIELDS_MAX {
            return Err(TooManyFields);
        }
        let id = FieldId(u16::try_from(self.names.len()).map_err(|_| TooManyFields)?);
        let mut hasher = Quick(self.fingerprint);
        hasher.write(name.as_bytes());
        self.fingerprint = hasher.finish();
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        Ok(id)
    }

    pub fn name(&self, id: FieldId) -> &str {
        self.names.get(id.index()).map_or("?", |name| name)
    }
}

/// A set of fields, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldSet([u64; FIELDS_MAX / 64]);

impl Default for FieldSet {
    fn default() -> Self {
        Self([0; FIELDS_MAX / 64])
    }
}

impl FieldSet {
    pub fn insert(&mut self, id: FieldId) {
        if let Some(word) = self.0.get_mut(id.index() / 64) {
            *word |= 1 << (id.index() % 64);
        }
    }

    pub fn contains(&self, id: FieldId) -> bool {
        self.0
            .get(id.index() / 64)
            .is_some_and(|word| word & (1 << (id.index() % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_names_stand_at_their_own_index() {
        for (at, &(id, name)) in WELL_KNOWN.iter().enumerate() {
            assert_eq!(id.index(), at, "{name}");
        }
        for (at, &(id, name)) in network::NAMES.iter().enumerate() {
            assert_eq!(id.index(), at + usize::from(network::FIRST), "{name}");
        }
        let fields = Fields::default();
        assert_eq!(fields.get("SourceIp"), Some(SOURCE_IP));
        assert_eq!(fields.name(network::JA4), "ja4");
        assert_eq!(fields.get("ja4"), Some(network::JA4));
        assert_eq!(fields.name(SOURCE_IP), "SourceIp");
        assert_eq!(
            fields.ids.len(),
            WELL_KNOWN.len() + network::NAMES.len(),
            "a name stands twice"
        );
    }

    #[test]
    fn interning_ends_at_the_limit() {
        let mut fields = Fields::default();
        for n in fields.names.len()..FIELDS_MAX {
            fields.intern(&format!("f{n}")).unwrap();
        }
        assert_eq!(fields.intern("one more"), Err(TooManyFields));
        assert_eq!(fields.intern("f1000"), Ok(fields.get("f1000").unwrap()));
    }
}
