//! What conversations tell, line by line, for the tests of every protocol.

use super::*;
use crate::event::field::Fields;

/// What one side sends next.
pub type Turn<'t> = (Side, &'t [u8]);

/// Plays a conversation in pieces of `piece` bytes; returns `category/service NAME=value …` of each event, with the
/// fields named, and what went wrong.
pub fn played(turns: &[Turn<'_>], piece: usize, names: &[&str]) -> Vec<String> {
    let fields = Fields::default();
    let mut told = Vec::new();
    let scene = Scene {
        prepare: &|_| (),
        initiated: None,
    };
    let mut emit = |event: &Event<'_>| {
        let of = &event.logsources;
        let mut line = format!("{}/{}", of.categories.join("+"), of.services.join("+"));
        for name in names {
            let id = fields.get(name).expect("a field's name");
            for value in event.all(id) {
                line.push_str(&format!(" {name}={}", value.lossy()));
            }
        }
        told.push(line);
    };
    let mut conversation = Conversation::default();
    let mut faults = Vec::new();
    let mut kept = [Vec::new(), Vec::new()];
    let mut skips = [0_usize; 2];
    'turns: for &(side, bytes) in turns {
        let at = usize::from(side == Side::Server);
        for part in bytes.chunks(piece) {
            let passed = part.len().min(skips[at]);
            skips[at] -= passed;
            kept[at].extend_from_slice(&part[passed..]);
            match conversation.read(side, &kept[at], &scene, &mut emit) {
                Ok(Step::Used(used) | Step::Switch(used)) => drop(kept[at].drain(..used)),
                Ok(Step::Skip(count)) => {
                    kept[at].clear();
                    skips[at] = count as usize;
                }
                Ok(Step::Done) => break 'turns,
                Err(error) => {
                    faults.push(format!("! {error}"));
                    break 'turns;
                }
            }
        }
    }
    conversation.finish(&scene, &mut emit);
    told.extend(faults);
    told
}

#[test]
fn a_protocol_is_known_on_any_port_by_what_is_said() {
    let get: &[u8] = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let names = ["uri", "client", "server"];
    for (turns, expected) in [
        (
            &[(Side::Client, get)][..],
            &["proxy+webserver/http uri=/x"][..],
        ),
        (
            &[
                (Side::Server, b"SSH-2.0-s\r\n"),
                (Side::Client, b"SSH-2.0-c\r\n"),
            ],
            &["ssh/ssh client=SSH-2.0-c server=SSH-2.0-s"],
        ),
        (
            &[(Side::Client, b"\0\0\0\0"), (Side::Server, b"\0\0\0\0")],
            &[],
        ),
        (&[(Side::Client, b"")], &[]),
    ] {
        for piece in [1, 4, 1000] {
            assert_eq!(played(turns, piece, &names), expected, "pieces of {piece}");
        }
    }
}

#[test]
fn behind_a_proxys_tunnel_another_protocol_is_read() {
    let turns: &[Turn<'_>] = &[
        (Side::Client, b"CONNECT git.example:22 HTTP/1.1\r\n\r\n"),
        (Side::Server, b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-inner\r\n"),
    ];
    for piece in [1, 1000] {
        assert_eq!(
            played(turns, piece, &["uri", "server"]),
            [
                "proxy+webserver/http uri=git.example:22",
                "ssh/ssh server=SSH-2.0-inner"
            ],
            "{piece}"
        );
    }
}
