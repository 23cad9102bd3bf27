//! JSON's tokens (RFC 8259), borrowed from the record. Knows nothing of events. Texts are bytes: what is not UTF-8
//! stays as it came.

/// Why a text is no JSON; the place counts bytes from 1, as serde_json's columns do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    pub at: usize,
}

/// Where a text stands between its quotes, with its escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    pub start: usize,
    pub end: usize,
    pub is_escaped: bool,
}

/// What a value begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token {
    Object,
    Array,
    Text(Quoted),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Null,
}

/// Reads on from one place.
#[derive(Debug)]
pub struct Scan<'r> {
    text: &'r [u8],
    at: usize,
}

impl<'r> Scan<'r> {
    pub fn new(text: &'r [u8]) -> Self {
        Self { text, at: 0 }
    }

    pub fn text(&self) -> &'r [u8] {
        self.text
    }

    pub fn bytes(&self, quoted: Quoted) -> &'r [u8] {
        self.text.get(quoted.start..quoted.end).unwrap_or_default()
    }

    pub fn broken(&self) -> Broken {
        Broken {
            at: (self.at + 1).min(self.text.len()),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over one byte behind white space, if it stands there.
    pub fn step(&mut self, byte: u8) -> bool {
        self.space();
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    pub fn expect(&mut self, byte: u8) -> Result<(), Broken> {
        match self.step(byte) {
            true => Ok(()),
            false => Err(self.broken()),
        }
    }

    /// Nothing but white space is left.
    pub fn end(&mut self) -> Result<(), Broken> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.broken()),
        }
    }

    pub fn token(&mut self) -> Result<Token, Broken> {
        self.space();
        match self.peek() {
            Some(b'"') => self.quoted().map(Token::Text),
            Some(b'{') => {
                self.at += 1;
                Ok(Token::Object)
            }
            Some(b'[') => {
                self.at += 1;
                Ok(Token::Array)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Token::Bool(true)),
            Some(b'f') => self.word(b"false", Token::Bool(false)),
            Some(b'n') => self.word(b"null", Token::Null),
            _ => Err(self.broken()),
        }
    }

    fn word(&mut self, word: &[u8], token: Token) -> Result<Token, Broken> {
        for &byte in word {
            if self.peek() != Some(byte) {
                return Err(self.broken());
            }
            self.at += 1;
        }
        Ok(token)
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        match self.at > from {
            true => Ok(()),
            false => Err(self.broken()),
        }
    }

    fn number(&mut self) -> Result<Token, Broken> {
        let from = self.at;
        let is_negative = self.peek() == Some(b'-');
        self.at += usize::from(is_negative);
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        let whole = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(from..self.at).unwrap_or_default();
        let text = str::from_utf8(text).map_err(|_| self.broken())?;
        if self.at == whole {
            if let Ok(number) = text.parse() {
                return Ok(Token::Int(number));
            }
            if let Ok(number) = text.parse() {
                return Ok(Token::Unsigned(number));
            }
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Token::Float(number)),
            _ => Err(self.broken()),
        }
    }

    /// Reads a text, from its first quote.
    pub fn quoted(&mut self) -> Result<Quoted, Broken> {
        self.expect(b'"')?;
        let start = self.at;
        let mut is_escaped = false;
        loop {
            self.at += plain(self.text.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(Quoted {
                        start,
                        end,
                        is_escaped,
                    });
                }
                Some(b'\\') => {
                    is_escaped = true;
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                            self.at += 1;
                        }
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                                    return Err(self.broken());
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(self.broken()),
                    }
                }
                _ => return Err(self.broken()),
            }
        }
    }
}

/// Returns how many bytes stand before the next quote, backslash or control character.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // Mycroft's test for a zero byte; its lowest hit is exact (Warren, Hacker's Delight, 6-1).
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = text.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let hits = (control | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c))) & HIGH;
        if hits != 0 {
            return n * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |&b: &u8| b < 0x20 || b == b'"' || b == b'\\';
    let last = rest.iter().position(is_special).unwrap_or(rest.len());
    words.len() * 8 + last
}

/// Appends a text without its escapes. They were checked when it was read. Half of a surrogate pair stands for no
/// character and becomes U+FFFD.
pub fn unescape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        let plain = match escape.get(1) {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'u') => {
                let (character, length) = unicode(escape);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = escape.get(length..).unwrap_or_default();
                continue;
            }
            Some(&byte) => byte,
            None => b'\\',
        };
        out.push(plain);
        rest = escape.get(2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// Returns the character that `\u and its four digits` or a pair of them stands for, and how many bytes it took.
fn unicode(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let escape = escape.get(at..at + 6)?;
        let digits = str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
            let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            (char::from_u32(code).unwrap_or('\u{fffd}'), 12)
        }
        (Some(code), _) => (char::from_u32(code).unwrap_or('\u{fffd}'), 6),
        (None, _) => ('\u{fffd}', 6),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_one_character_and_halves_are_replaced() {
        for (text, expected) in [
            (r"\ud83d\ude00", "\u{1f600}"),
            (r"a\ud83d", "a\u{fffd}"),
            (r"\ude00\ud83db", "\u{fffd}\u{fffd}b"),
            (r"\u0110\n\/", "\u{110}\n/"),
            (r"C:\\Windows\\x", r"C:\Windows\x"),
        ] {
            let mut out = Vec::new();
            unescape(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_keep_to_the_grammar() {
        for (text, expected) in [
            ("-1", Some(Token::Int(-1))),
            ("0", Some(Token::Int(0))),
            ("1.5", Some(Token::Float(1.5))),
            ("1e3", Some(Token::Float(1000.0))),
            ("18446744073709551615", Some(Token::Unsigned(u64::MAX))),
            ("01", None),
            ("-", None),
            ("1.", None),
            ("1e", None),
            ("1e999", None),
        ] {
            let mut scan = Scan::new(text.as_bytes());
            let read = scan.token().and_then(|token| scan.end().map(|()| token));
            assert_eq!(read.ok(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn texts_are_what_serde_json_reads(text in "(?s)[\\x00-\\x7fđ\u{1f600}]{0,40}", at in 0_usize..40, byte in any::<u8>()) {
            let whole = serde_json::to_string(&text).unwrap();
            let mut scan = Scan::new(whole.as_bytes());
            let Ok(Token::Text(quoted)) = scan.token() else { panic!("{whole}") };
            let mut out = Vec::new();
            unescape(scan.bytes(quoted), &mut out);
            prop_assert_eq!(out, text.as_bytes());
            prop_assert!(quoted.is_escaped || scan.bytes(quoted) == text.as_bytes());
            // A changed byte is refused where serde_json refuses it; surrogates alone differ.
            let mut changed = whole.into_bytes();
            if let Some(slot) = changed.get_mut(at) { *slot = byte; }
            if str::from_utf8(&changed).is_ok() && !changed.windows(2).any(|pair| pair == b"\\u") {
                let mut scan = Scan::new(&changed);
                let ours = scan.token().and_then(|token| match token {
                    Token::Text(_) => scan.end(),
                    _ => Err(scan.broken()),
                });
                let theirs = serde_json::from_slice::<String>(&changed);
                prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}", changed);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut scan = Scan::new(&bytes);
            while scan.token().is_ok() {}
            let mut out = Vec::new();
            unescape(&bytes, &mut out);
        }
    }
}
