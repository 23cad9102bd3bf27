//! Puts the segments of TCP connections in order and has each conversation read them. Of a side at most the first
//! 64 KiB are read; what is lost or comes too far out of order ends the reading, never the memory.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use crate::decode::DecodeError;
use crate::decode::net::conversation::Conversation;
use crate::decode::net::dialogue::{Scene, Side, Step};
use crate::decode::net::packet::Tcp;
use crate::event::Event;

/// Address and port of either end.
pub type End = (IpAddr, u16);

/// Who talks to whom, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Talk {
    pub client: End,
    pub server: End,
    /// Of the last segment.
    pub at: Timestamp,
    pub vlan: Option<u16>,
}

/// Reads what is due, and tells it by the scene it is given.
pub type Reading<'r> = &'r mut dyn FnMut(&Scene<'_>, &mut dyn FnMut(&Event<'_>));
/// Sets the scene of a connection for a reading.
pub type Tell<'t> = &'t mut dyn FnMut(&Talk, Reading<'_>);

/// The connections under way.
#[derive(Default)]
pub struct Streams {
    table: HashMap<Pair, Stream>,
    /// In order of their beginning; an entry whose number is not its stream's is past.
    order: VecDeque<(Pair, u64)>,
    number: u64,
    /// Bytes held of all streams.
    held: usize,
    /// Streams given up before their end: too many, or too many bytes.
    pub evicted: u64,
}

/// Both ends, the lower first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pair(End, End);

struct Stream {
    number: u64,
    talk: Talk,
    conversation: Conversation,
    client: Half,
    server: Half,
    /// Nothing more is read, but the connection is remembered: its rest is no new one.
    is_over: bool,
}

#[derive(Default)]
struct Half {
    /// The sequence number that comes next.
    next: Option<u32>,
    /// In order, and not used yet.
    kept: Vec<u8>,
    /// So many bytes tell nothing.
    skip: u64,
    /// Bytes read so far.
    read: usize,
    /// What came before its turn.
    later: Vec<(u32, Vec<u8>)>,
    is_ended: bool,
}

/// As many as a busy host has; each of about 600 bytes while nothing is held.
const STREAMS_MAX: usize = 65_536;
/// Held bytes of all streams.
const HELD_BYTES_MAX: usize = 32 << 20;
/// What tells who talks about what stands in the beginning of each direction.
const READ_BYTES_MAX: usize = 64 << 10;
/// A window of out-of-order segments; where more is missing, it was lost to the sensor.
const LATER_MAX: usize = 32;
/// Longer than most servers wait for a client's next request.
const IDLE: SignedDuration = SignedDuration::from_secs(300);
/// How many of the oldest are looked at for each segment.
const SWEEP: usize = 2;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl Streams {
    /// Reads one segment.
    ///
    /// # Errors
    /// What broke its protocol; it is told as far as it was read.
    pub fn segment(
        &mut self,
        source: End,
        destination: End,
        tcp: &Tcp<'_>,
        at: Timestamp,
        vlan: Option<u16>,
        tell: Tell<'_>,
    ) -> Result<(), DecodeError> {
        self.sweep(at, tell);
        let flags = tcp.flags.0;
        let pair = Pair::of(source, destination);
        if flags & SYN != 0 {
            self.begin(pair, source, destination, tcp, at, vlan, tell);
        } else if !self.table.contains_key(&pair) {
            if tcp.payload.is_empty() {
                return Ok(());
            }
            // Its beginning was not seen: the lower port is mostly the server's.
            let (client, server) = match source.1 < destination.1 {
                true => (destination, source),
                false => (source, destination),
            };
            self.insert(
                pair,
                Talk {
                    client,
                    server,
                    at,
                    vlan,
                },
                tell,
            );
        }
        let Some(stream) = self.table.get_mut(&pair) else {
            return Ok(());
        };
        stream.talk.at = at;
        let held = stream.held();
        let outcome = stream.take(source, tcp, tell);
        self.held = (self.held + stream.held()).saturating_sub(held);
        let ended = flags & RST != 0 || stream.client.is_ended && stream.server.is_ended;
        if ended {
            self.end(pair, tell);
        }
        self.shrink(tell);
        outcome
    }

    /// Tells what waits, of connections idle at `now`.
    pub fn flush(&mut self, now: Timestamp, tell: Tell<'_>) {
        for _ in 0..self.order.len() {
            self.sweep(now, tell);
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Returns how many bytes wait for more.
    pub fn held(&self) -> usize {
        self.held
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a segment's facts, passed on once"
    )]
    fn begin(
        &mut self,
        pair: Pair,
        source: End,
        destination: End,
        tcp: &Tcp<'_>,
        at: Timestamp,
        vlan: Option<u16>,
        tell: Tell<'_>,
    ) {
        let first = tcp.sequence.wrapping_add(1);
        let (client, server) = match tcp.flags.0 & ACK == 0 {
            true => (source, destination),
            false => (destination, source),
        };
        if let Some(stream) = self.table.get_mut(&pair) {
            let half = stream.half(source);
            match half.next {
                None => half.next = Some(first),
                // Sent again, or seen again.
                Some(next) if next.wrapping_sub(first) < READ_BYTES_MAX as u32 => {}
                // The ports are used anew.
                Some(_) => {
                    self.end(pair, tell);
                    self.insert(
                        pair,
                        Talk {
                            client,
                            server,
                            at,
                            vlan,
                        },
                        tell,
                    );
                }
            }
        } else {
            self.insert(
                pair,
                Talk {
                    client,
                    server,
                    at,
                    vlan,
                },
                tell,
            );
        }
        if let Some(stream) = self.table.get_mut(&pair) {
            stream.half(source).next.get_or_insert(first);
        }
    }

    fn insert(&mut self, pair: Pair, talk: Talk, tell: Tell<'_>) {
        while self.table.len() >= STREAMS_MAX {
            self.evict(tell);
        }
        self.number += 1;
        self.order.push_back((pair, self.number));
        let stream = Stream {
            number: self.number,
            talk,
            conversation: Conversation::default(),
            client: Half::default(),
            server: Half::default(),
            is_over: false,
        };
        self.table.insert(pair, stream);
    }

    fn end(&mut self, pair: Pair, tell: Tell<'_>) {
        if let Some(mut stream) = self.table.remove(&pair) {
            self.held = self.held.saturating_sub(stream.held());
            stream.finish(tell);
        }
    }

    fn evict(&mut self, tell: Tell<'_>) {
        let Some((pair, number)) = self.order.pop_front() else {
            self.table.clear();
            return;
        };
        if self
            .table
            .get(&pair)
            .is_some_and(|stream| stream.number == number)
        {
            self.evicted += 1;
            self.end(pair, tell);
        }
    }

    fn shrink(&mut self, tell: Tell<'_>) {
        while self.held > HELD_BYTES_MAX && !self.order.is_empty() {
            self.evict(tell);
        }
    }

    /// Ends the oldest that are idle; those that are not go to the back.
    fn sweep(&mut self, now: Timestamp, tell: Tell<'_>) {
        for _ in 0..SWEEP {
            let Some(&(pair, number)) = self.order.front() else {
                return;
            };
            match self.table.get(&pair) {
                Some(stream) if stream.number == number => {
                    if now.duration_since(stream.talk.at).abs() > IDLE {
                        self.end(pair, tell);
                        self.order.pop_front();
                    } else {
                        self.order.rotate_left(1);
                        return;
                    }
                }
                _ => drop(self.order.pop_front()),
            }
        }
    }
}

impl Pair {
    fn of(a: End, b: End) -> Self {
        match a <= b {
            true => Self(a, b),
            false => Self(b, a),
        }
    }
}

impl Stream {
    fn half(&mut self, source: End) -> &mut Half {
        match source == self.talk.client {
            true => &mut self.client,
            false => &mut self.server,
        }
    }

    fn held(&self) -> usize {
        self.client.held() + self.server.held()
    }

    fn take(&mut self, source: End, tcp: &Tcp<'_>, tell: Tell<'_>) -> Result<(), DecodeError> {
        let side = match source == self.talk.client {
            true => Side::Client,
            false => Side::Server,
        };
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        if tcp.flags.0 & FIN != 0 {
            half.is_ended = true;
        }
        if self.is_over || tcp.payload.is_empty() {
            return Ok(());
        }
        let start = match tcp.flags.0 & SYN {
            0 => tcp.sequence,
            // RFC 7413: data in a SYN stands behind it.
            _ => tcp.sequence.wrapping_add(1),
        };
        let next = *half.next.get_or_insert(start);
        let ahead = start.wrapping_sub(next);
        if ahead as i32 > 0 {
            if half.later.len() < LATER_MAX {
                half.later.push((start, tcp.payload.to_vec()));
            } else {
                self.give_up(tell);
            }
            return Ok(());
        }
        let seen = next.wrapping_sub(start) as usize;
        let Some(fresh) = tcp.payload.get(seen..).filter(|fresh| !fresh.is_empty()) else {
            return Ok(());
        };
        let mut outcome = self.feed(side, fresh, tell);
        while let (Ok(()), Some(bytes)) = (outcome, self.due(side)) {
            outcome = self.feed(side, &bytes, tell);
        }
        outcome
    }

    /// Takes what came early and is next now.
    fn due(&mut self, side: Side) -> Option<Vec<u8>> {
        if self.is_over {
            return None;
        }
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let next = half.next?;
        while let Some(at) = half
            .later
            .iter()
            .position(|(start, _)| next.wrapping_sub(*start) as i32 >= 0)
        {
            let (start, bytes) = half.later.swap_remove(at);
            let fresh = bytes
                .get(next.wrapping_sub(start) as usize..)
                .unwrap_or_default();
            if !fresh.is_empty() {
                return Some(fresh.to_vec());
            }
        }
        None
    }

    /// Has bytes read that stand next.
    fn feed(&mut self, side: Side, bytes: &[u8], tell: Tell<'_>) -> Result<(), DecodeError> {
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        half.next = half.next.map(|next| next.wrapping_add(count));
        let passed = usize::try_from(half.skip)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        half.skip = half.skip.saturating_sub(passed as u64);
        let bytes = bytes.get(passed..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        half.read = half.read.saturating_add(bytes.len());
        let is_enough = half.read > READ_BYTES_MAX;
        let mut kept = std::mem::take(&mut half.kept);
        let all = match kept.is_empty() {
            true => bytes,
            false => {
                kept.extend_from_slice(bytes);
                &kept
            }
        };
        let mut step = Ok(Step::Done);
        let conversation = &mut self.conversation;
        tell(&self.talk, &mut |scene, emit| {
            step = conversation.read(side, all, scene, emit);
        });
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        match step {
            Ok(Step::Used(used) | Step::Switch(used)) => {
                half.kept = all.get(used..).unwrap_or_default().to_vec();
            }
            Ok(Step::Skip(count)) => half.skip = count,
            Ok(Step::Done) => self.forget(),
            Err(error) => {
                self.forget();
                return Err(error);
            }
        }
        if is_enough && !self.is_over {
            self.give_up(tell);
        }
        Ok(())
    }

    /// Ends the reading before the connection's end.
    fn give_up(&mut self, tell: Tell<'_>) {
        self.finish(tell);
        self.forget();
    }

    fn forget(&mut self) {
        self.is_over = true;
        for half in [&mut self.client, &mut self.server] {
            half.kept = Vec::new();
            half.later = Vec::new();
        }
    }

    fn finish(&mut self, tell: Tell<'_>) {
        if !self.is_over {
            let conversation = &mut self.conversation;
            tell(&self.talk, &mut |scene, emit| {
                conversation.finish(scene, emit)
            });
        }
    }
}

impl Half {
    fn held(&self) -> usize {
        let later: usize = self.later.iter().map(|(_, bytes)| bytes.len()).sum();
        self.kept.len() + later
    }
}
