//! Lists for people and programs: a table, one JSON object a line, CSV. What comes from a log can steer neither a
//! terminal nor a spreadsheet.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::diagnostic::visible;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For reading
    #[default]
    Table,
    /// One object a line
    Json,
    /// For spreadsheets
    Csv,
}

/// The widest cell of a table, in characters.
const CELL_CHARS_MAX: usize = 64;

/// Writes columns as wide as their widest cell; the last is not padded.
pub fn table(out: &mut impl Write, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| fit(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head.get(column).map_or(0, |name| name.chars().count()))
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.chars().count()) + 2,
            ));
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(&mut head.iter().copied())?;
    for row in &rows {
        line(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

/// Makes a cell harmless and short.
pub fn fit(cell: &str) -> String {
    let cell = visible(cell);
    if cell.chars().count() <= CELL_CHARS_MAX {
        return cell;
    }
    let mut cut: String = cell.chars().take(CELL_CHARS_MAX - 1).collect();
    cut.push('…');
    cut
}

/// Writes one line of CSV (RFC 4180), each cell in quotes. A cell that a spreadsheet would run gets a `'` before it.
pub fn csv(out: &mut impl Write, cells: &[&str]) -> io::Result<()> {
    let mut line = String::new();
    for cell in cells {
        if !line.is_empty() {
            line.push(',');
        }
        line.push('"');
        let cell = visible(cell);
        if cell.trim_start().starts_with(is_formula) {
            line.push('\'');
        }
        line.push_str(&cell.replace('"', "\"\""));
        line.push('"');
    }
    write!(out, "{line}\r\n")
}

/// What begins a formula, also in the wide forms of East Asian input.
fn is_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠')
}

/// Writes JSON on one line: what could steer a terminal is escaped as JSON has it, so that the value stays the same.
pub fn json(out: &mut impl Write, text: &str) -> io::Result<()> {
    if visible(text) == text {
        return writeln!(out, "{text}");
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        let one = c.to_string();
        if visible(&one) == one {
            line.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            line.push_str(&format!("\\u{unit:04x}"));
        }
    }
    writeln!(out, "{line}")
}

/// Who reads a list may stop: `| head` is no fault.
pub fn finish(written: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    match written {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            _ => Err(error),
        },
    }
}

/// Runs one command's requests to their end.
pub fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    use anyhow::Context as _;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_lines_up_and_shows_hostile_text() {
        let rows = [
            vec!["a".to_owned(), "tiếng Việt".to_owned(), "x".to_owned()],
            vec!["bb".to_owned(), "\u{1b}[2J".to_owned(), "y".repeat(99)],
        ];
        let cut = "y".repeat(63);
        assert_eq!(
            written(|out| table(out, &["ONE", "TWO", "THREE"], &rows)),
            format!("ONE  TWO         THREE\na    tiếng Việt  x\nbb   \\u{{1b}}[2J   {cut}…\n")
        );
    }

    #[test]
    fn csv_runs_nothing() {
        for (cell, shown) in [
            ("plain", r#""plain""#),
            (r#"a "b", c"#, r#""a ""b"", c""#),
            ("=1+1", r#""'=1+1""#),
            (" @SUM(A1)", r#""' @SUM(A1)""#),
            ("+1", r#""'+1""#),
            ("-1", r#""'-1""#),
            ("＝1", r#""'＝1""#),
            ("a\r\n=1", r#""a\u{d}\u{a}=1""#),
            ("\t=1", r#""\u{9}=1""#),
        ] {
            assert_eq!(written(|out| csv(out, &[cell])), format!("{shown}\r\n"));
        }
        assert_eq!(written(|out| csv(out, &["a", "b"])), "\"a\",\"b\"\r\n");
    }

    #[test]
    fn json_keeps_its_value_and_steers_nothing() {
        let hostile = "a\u{9b}2J\u{202e}\u{7f}\u{e0001}ữ";
        let text = serde_json::to_string(hostile).unwrap();
        let line = written(|out| json(out, &text));
        assert_eq!(visible(line.trim_end()), line.trim_end());
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
        assert!(line.contains('ữ'));
    }

    #[test]
    fn a_reader_that_stops_is_no_fault() {
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(finish(Err(broken.into())).is_ok());
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(finish(Err(full.into())).is_err());
    }
}
