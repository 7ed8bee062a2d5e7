//! A page of text, tables and charts as one HTML file.

use super::escaped;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:1rem 0;font-size:13px}th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right}\
th:first-child,td:first-child,.words th,.words td{text-align:left}svg{max-width:100%;height:auto}code{background:#f4f4f4}";

/// A table; the first column is text, the others are aligned right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Parts are added in the order in which they are read.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    pub fn new(title: &str) -> Page {
        Page { title: escaped(title), body: String::new() }
    }

    pub fn heading(&mut self, text: &str) -> &mut Page {
        self.body += &format!("<h2>{}</h2>\n", escaped(text));
        self
    }

    /// What stands between two backquotes is set as code.
    pub fn paragraph(&mut self, text: &str) -> &mut Page {
        let mut parts: Vec<String> = escaped(text).split('`').map(str::to_owned).collect();
        let is_paired = parts.len() % 2 == 1;
        for code in parts.iter_mut().skip(1).step_by(2).filter(|_| is_paired) {
            *code = format!("<code>{code}</code>");
        }
        self.body += &format!("<p>{}</p>\n", parts.join(if is_paired { "" } else { "`" }));
        self
    }

    pub fn table(&mut self, table: &Table) -> &mut Page {
        let cells = |cells: &[String], kind: &str| -> String {
            cells.iter().map(|cell| format!("<{kind}>{}</{kind}>", escaped(cell))).collect()
        };
        self.body += &format!("<table><thead><tr>{}</tr></thead><tbody>\n", cells(&table.head, "th"));
        for row in &table.rows {
            self.body += &format!("<tr>{}</tr>\n", cells(row, "td"));
        }
        self.body += "</tbody></table>\n";
        self
    }

    /// A table of words, all of its columns to the left, that shows when its summary is clicked.
    pub fn words(&mut self, summary: &str, table: &Table) -> &mut Page {
        self.body += "<div class=\"words\">";
        self.details(summary, table).body += "</div>\n";
        self
    }

    /// A table that shows when its summary is clicked.
    pub fn details(&mut self, summary: &str, table: &Table) -> &mut Page {
        self.body += &format!("<details><summary>{}</summary>\n", escaped(summary));
        self.table(table).body += "</details>\n";
        self
    }

    /// An SVG that this room made.
    pub fn chart(&mut self, svg: &str) -> &mut Page {
        self.body += svg;
        self
    }

    pub fn html(&self) -> String {
        let (title, body) = (&self.title, &self.body);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n{body}</body></html>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let mut page = Page::new("a<b");
        let table = Table { head: vec!["<th>".into()], rows: vec![vec!["<script>".into(), "1".into()]] };
        page.heading("h&h").paragraph("<p>").table(&table).details("s<s", &table);
        page.paragraph("set `a<b` and `c`").paragraph("one ` alone");
        let html = page.html();
        assert!(
            html.contains("<p>set <code>a&lt;b</code> and <code>c</code></p>")
                && html.contains("one ` alone")
        );
        assert!(html.contains("<td>&lt;script&gt;</td><td>1</td>") && html.contains("<h2>h&amp;h</h2>"));
        assert!(html.contains("<summary>s&lt;s</summary>") && html.contains("</table>\n</details>"));
        assert!(!html.contains("<script") && !html.contains("http"), "{html}");
    }
}
