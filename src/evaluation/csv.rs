//! Comma-separated values (RFC 4180): quoted fields with commas, doubled quotes and line breaks in them.

/// Rows of fields; `Err` names the line at which a quote is not closed or stands where it may not.
pub fn rows(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    let mut row: Vec<String> = Vec::new();
    let mut field = String::new();
    let mut letters = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    let (mut line, mut opened, mut was_quoted) = (1, None, false);
    while let Some(letter) = letters.next() {
        line += usize::from(letter == '\n');
        match (letter, opened) {
            ('"', Some(_)) if letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            ('"', Some(_)) => opened = None,
            (letter, Some(_)) => field.push(letter),
            ('"', None) if field.is_empty() && !was_quoted => (opened, was_quoted) = (Some(line), true),
            ('"', None) => return Err(format!("line {line}: a quote inside a field")),
            (',', None) => {
                row.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            ('\r', None) if letters.peek() == Some(&'\n') => {}
            ('\n', None) => {
                row.push(std::mem::take(&mut field));
                was_quoted = false;
                rows.push(std::mem::take(&mut row));
            }
            (letter, None) => field.push(letter),
        }
    }
    if let Some(line) = opened {
        return Err(format!("line {line}: a quote that is not closed"));
    }
    if !field.is_empty() || was_quoted || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_commas_and_lines() {
        let table: [(&str, &[&[&str]]); 6] = [
            ("a,b\nc,d\n", &[&["a", "b"], &["c", "d"]]),
            ("a,b\r\nc,d", &[&["a", "b"], &["c", "d"]]),
            ("\"a,1\",\"say \"\"x\"\"\"\n", &[&["a,1", "say \"x\""]]),
            ("\"two\nlines\",b\n", &[&["two\nlines", "b"]]),
            (",\n\"\",", &[&["", ""], &["", ""]]),
            ("", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(rows(text).expect(text), expected, "{text}");
        }
        for (text, part) in
            [("a,\"b\nc", "line 1: a quote that is not"), ("a\nb\"c", "line 2: a quote inside")]
        {
            assert!(rows(text).is_err_and(|error| error.contains(part)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(table in prop::collection::vec(prop::collection::vec(".*", 1..5), 1..5)) {
            let quote = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quote).collect::<Vec<_>>().join(",");
            let text = table.iter().map(line).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(rows(&text), Ok(table));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a\",\n\r]*") {
            let _ = rows(&text);
        }
    }
}
