use crate::decode::net::conversation::tests::{Turn, played};
use crate::decode::net::dialogue::Side::{Client, Server};

const NAMES: &[&str] = &[
    "helo",
    "mailfrom",
    "rcptto",
    "from",
    "to",
    "subject",
    "last_reply",
    "tls",
    "user",
    "AuthenticationMethod",
    "Outcome",
    "CredentialsInClear",
];

#[test]
fn mails_and_logins_are_told_and_the_password_never() {
    let mail: &[Turn<'_>] = &[
        (Server, b"220 mx.example ESMTP\r\n"),
        (Client, b"EHLO pc1\r\n"),
        (Server, b"250-mx\r\n250 AUTH LOGIN\r\n"),
        (Client, b"MAIL FROM:<a@x.example> SIZE=3\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n"),
        (Server, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
        (Client, b"From: A <a@x.example>\r\nTo: b\r\nSubject: hi\r\n\r\nSubject: body\r\n..\r\n.\r\n"),
        (Server, b"250 queued\r\n"),
        (Client, b"QUIT\r\n"),
    ];
    let plain: &[Turn<'_>] = &[
        (Server, b"220 mx\r\n"),
        (Client, b"EHLO pc1\r\n"),
        (Server, b"250 mx\r\n"),
        (Client, b"AUTH PLAIN AGFuAHNlY3JldA==\r\n"),
        (Server, b"235 in\r\n"),
    ];
    let login: &[Turn<'_>] = &[
        (Server, b"220 mx\r\n"),
        (Client, b"HELO pc1\r\n"),
        (Server, b"250 mx\r\n"),
        (Client, b"AUTH LOGIN\r\n"),
        (Server, b"334 VXNlcm5hbWU6\r\n"),
        (Client, b"YW4=\r\n"),
        (Server, b"334 UGFzc3dvcmQ6\r\n"),
        (Client, b"c2VjcmV0\r\n"),
        (Server, b"535 no\r\n"),
    ];
    let tls: &[Turn<'_>] = &[
        (Server, b"220 mx\r\n"),
        (Client, b"EHLO pc1\r\n"),
        (Server, b"250 STARTTLS\r\n"),
        (Client, b"STARTTLS\r\n"),
        (Server, b"220 go\r\n"),
        (Client, b"\x16\x03\x01"),
    ];
    for (turns, expected) in [
        (
            mail,
            "smtp/smtp helo=pc1 mailfrom=a@x.example rcptto=b@y.example rcptto=c@y.example from=A <a@x.example> to=b \
             subject=hi last_reply=250 queued tls=false",
        ),
        (
            plain,
            "authentication/smtp user=an AuthenticationMethod=plain Outcome=success CredentialsInClear=true",
        ),
        (
            login,
            "authentication/smtp user=an AuthenticationMethod=login Outcome=failure CredentialsInClear=true",
        ),
        (tls, "smtp/smtp helo=pc1 last_reply=220 go tls=true"),
    ] {
        for piece in [1, 1000] {
            assert_eq!(played(turns, piece, NAMES), [expected], "pieces of {piece}");
        }
    }
}

#[test]
fn a_chunk_of_a_mail_is_passed_over() {
    let turns: &[Turn<'_>] = &[
        (Server, b"220 mx\r\n"),
        (
            Client,
            b"EHLO pc1\r\nMAIL FROM:<a>\r\nBDAT 10 LAST\r\nAUTH PLAI\nNOOP\r\nQUIT\r\n",
        ),
    ];
    for piece in [1, 1000] {
        let told = played(turns, piece, NAMES);
        assert_eq!(
            told,
            ["smtp/smtp helo=pc1 mailfrom=a tls=false"],
            "pieces of {piece}"
        );
    }
}
