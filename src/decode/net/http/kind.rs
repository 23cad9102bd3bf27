//! Kinds of content by their first bytes, named as libmagic names them. A dozen that rules ask for; the rest is what
//! the sender says it is.

/// The first bytes of a kind.
const KINDS: &[(&[u8], &str)] = &[
    (b"MZ", "application/x-dosexec"),
    (b"\x7fELF", "application/x-executable"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/x-gzip"),
    (b"Rar!\x1a\x07", "application/x-rar"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"%PDF-", "application/pdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/msword"),
    (b"{\\rtf", "text/rtf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"\xca\xfe\xba\xbe", "application/java-class"),
    (b"MSCF", "application/vnd.ms-cab-compressed"),
    (b"<?xml", "application/xml"),
    (b"#!/", "text/x-shellscript"),
];

/// Returns the kind, if it is one of those known.
pub fn of(body: &[u8]) -> Option<&'static str> {
    let known = KINDS.iter().find(|(tag, _)| body.starts_with(tag));
    let text = body.trim_ascii_start();
    known.map(|(_, kind)| *kind).or_else(|| {
        let is_html = [
            &b"<!doctype html"[..],
            b"<html",
            b"<head",
            b"<title",
            b"<body",
        ]
        .iter()
        .any(|tag| {
            text.get(..tag.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(tag))
        });
        is_html.then_some("text/html")
    })
}
