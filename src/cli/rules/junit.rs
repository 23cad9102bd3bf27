//! Outcomes of samples as JUnit's XML, for the build servers that show it.

use std::fmt::Write as _;

/// One case of a rule file's sample.
#[derive(Debug)]
pub struct Case {
    pub file: String,
    pub name: String,
    pub wrong: Option<String>,
}

/// Returns the report: a suite for each rule file.
pub fn report(cases: &[Case]) -> String {
    let failed = |cases: &[&Case]| cases.iter().filter(|case| case.wrong.is_some()).count();
    let all: Vec<&Case> = cases.iter().collect();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String does not fail.
    let _ = writeln!(
        xml,
        "<testsuites tests=\"{}\" failures=\"{}\">",
        all.len(),
        failed(&all)
    );
    for suite in all.chunk_by(|a, b| a.file == b.file) {
        let file = suite.first().map_or("", |case| &case.file);
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\">",
            escaped(file),
            suite.len(),
            failed(suite)
        );
        for case in suite {
            let head = format!(
                "    <testcase classname=\"{}\" name=\"{}\"",
                escaped(file),
                escaped(&case.name)
            );
            let _ = match &case.wrong {
                None => writeln!(xml, "{head}/>"),
                Some(wrong) => writeln!(
                    xml,
                    "{head}><failure message=\"{}\"/></testcase>",
                    escaped(wrong)
                ),
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// What XML 1.0 can't hold at all is replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c < ' ' || c == '\u{fffe}' || c == '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_within_their_attribute() {
        let case = |file: &str, wrong: Option<&str>| Case {
            file: file.to_owned(),
            name: "a\"><x/>\u{1b}".to_owned(),
            wrong: wrong.map(str::to_owned),
        };
        let xml = report(&[
            case("a.yml", None),
            case("a.yml", Some("fires 2 times\n&")),
            case("b.yml", None),
        ]);
        assert!(
            xml.contains("<testsuites tests=\"3\" failures=\"1\">"),
            "{xml}"
        );
        assert!(
            xml.contains("<testsuite name=\"a.yml\" tests=\"2\" failures=\"1\">"),
            "{xml}"
        );
        assert!(
            xml.contains("name=\"a&quot;&gt;&lt;x/&gt;\u{fffd}\"/>"),
            "{xml}"
        );
        assert!(xml.contains("message=\"fires 2 times&#10;&amp;\""), "{xml}");
    }
}
