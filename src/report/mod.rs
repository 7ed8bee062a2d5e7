//! Self-contained pages and SVG charts for results; knows numbers and labels only.
//!
//! Charts are SVG text with a fixed number of decimals, so equal numbers give equal bytes. A page carries its style and
//! charts in one HTML file and loads nothing from anywhere.

mod chart;
mod page;

pub use chart::{IntervalChart, IntervalRow, LineChart, Series};
pub use page::{Page, Table};

/// Text as it may stand in HTML and SVG.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
