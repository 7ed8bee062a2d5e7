//! Two charts as SVG: lines over steps, and values with intervals under one another.

use super::escaped;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
/// Colours that colour-blind readers tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    pub label: String,
    /// `(x, y)` in ascending x; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Axis on the right side instead of the left.
    pub right: bool,
}

/// Lines over a common x axis; each side has its own scale.
#[derive(Clone, Debug)]
pub struct LineChart {
    pub title: String,
    pub x_label: String,
    pub left_label: String,
    pub right_label: String,
    pub series: Vec<Series>,
}

/// Smallest and largest of some numbers, spread a little; 0 to 1 without any.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    match low.is_finite() {
        false => (0.0, 1.0),
        true if high - low < 1e-9 => (low - 0.5, high + 0.5),
        true => (low - 0.04 * (high - low), high + 0.04 * (high - low)),
    }
}

/// Round steps that cut a range into four to eight parts.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough);
    let step = step.unwrap_or(power);
    // A tick at an end must not be lost to the last bit of a product.
    let slack = step * 1e-9;
    let first = ((low - slack) / step).ceil() as i64;
    let ticks = (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high + slack);
    ticks.take(20).map(|tick| tick.clamp(low, high)).collect()
}

/// A tick's label without trailing zeros.
fn label(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

impl LineChart {
    pub fn svg(&self) -> String {
        const HEIGHT: f64 = 380.0;
        let (left, right, top, bottom) = (60.0, WIDTH - 60.0, 56.0, HEIGHT - 44.0);
        let xs = range(self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)));
        let side = |is_right: bool| {
            let chosen = self.series.iter().filter(move |series| series.right == is_right);
            range(chosen.flat_map(|series| series.points.iter().map(|point| point.1)))
        };
        let (lefts, rights) = (side(false), side(true));
        let place = |value: f64, from: (f64, f64), to: (f64, f64)| {
            to.0 + (value - from.0) / (from.1 - from.0) * (to.1 - to.0)
        };
        let mut svg = opening(HEIGHT, &self.title);
        for tick in ticks(xs.0, xs.1) {
            let x = place(tick, xs, (left, right));
            let _ =
                writeln!(svg, r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#eee"/>"##);
            text(&mut svg, (x, bottom + 16.0), "middle", &label(tick));
        }
        for tick in ticks(lefts.0, lefts.1) {
            let y = place(tick, lefts, (bottom, top));
            let _ =
                writeln!(svg, r##"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#eee"/>"##);
            text(&mut svg, (left - 6.0, y + 4.0), "end", &label(tick));
        }
        if self.series.iter().any(|series| series.right) {
            for tick in ticks(rights.0, rights.1) {
                text(
                    &mut svg,
                    (right + 6.0, place(tick, rights, (bottom, top)) + 4.0),
                    "start",
                    &label(tick),
                );
            }
            text(&mut svg, (WIDTH - 8.0, top - 8.0), "end", &self.right_label);
        }
        text(&mut svg, (8.0, top - 8.0), "start", &self.left_label);
        text(&mut svg, ((left + right) / 2.0, HEIGHT - 10.0), "middle", &self.x_label);
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let ys = if series.right { rights } else { lefts };
            let points: Vec<String> = (series.points.iter())
                .filter(|point| point.0.is_finite() && point.1.is_finite())
                .map(|point| {
                    let x = place(point.0, xs, (left, right));
                    format!("{x:.1},{:.1}", place(point.1, ys, (bottom, top)))
                })
                .collect();
            let points = points.join(" ");
            let _ = writeln!(
                svg,
                r##"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>"##
            );
            let x = left + 150.0 * i as f64;
            let _ = writeln!(svg, r##"<rect x="{x:.1}" y="28" width="12" height="4" fill="{colour}"/>"##);
            text(&mut svg, (x + 16.0, 34.0), "start", &series.label);
        }
        svg + "</svg>\n"
    }
}

/// A value with its interval.
#[derive(Clone, Debug)]
pub struct IntervalRow {
    pub label: String,
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Values with intervals, one under another, and a vertical line at a value to compare with.
#[derive(Clone, Debug)]
pub struct IntervalChart {
    pub title: String,
    pub x_label: String,
    pub reference: Option<f64>,
    pub rows: Vec<IntervalRow>,
}

impl IntervalChart {
    pub fn svg(&self) -> String {
        let height = 70.0 + 24.0 * self.rows.len() as f64;
        // Letters of this size are some 6.6 wide; half of the picture is the chart's.
        let longest = self.rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
        let left = (20.0 + 6.6 * longest as f64).clamp(120.0, WIDTH / 2.0);
        let (right, top, bottom) = (WIDTH - 70.0, 36.0, height - 36.0);
        let values = self.rows.iter().flat_map(|row| [row.value, row.low, row.high]);
        let (low, high) = range(values.chain(self.reference));
        let place = |value: f64| left + (value - low) / (high - low) * (right - left);
        let mut svg = opening(height, &self.title);
        for tick in ticks(low, high) {
            let x = place(tick);
            let _ =
                writeln!(svg, r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#eee"/>"##);
            text(&mut svg, (x, bottom + 14.0), "middle", &label(tick));
        }
        if let Some(reference) = self.reference {
            let x = place(reference);
            let _ = writeln!(
                svg,
                r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="#888" stroke-dasharray="4 3"/>"##
            );
        }
        for (i, row) in self.rows.iter().enumerate().filter(|(_, row)| row.value.is_finite()) {
            let y = top + 12.0 + 24.0 * i as f64;
            let colour = COLOURS[0];
            text(&mut svg, (left - 10.0, y + 4.0), "end", &row.label);
            if row.low.is_finite() && row.high.is_finite() {
                let (from, to) = (place(row.low), place(row.high));
                let _ = writeln!(
                    svg,
                    r##"<line x1="{from:.1}" y1="{y:.1}" x2="{to:.1}" y2="{y:.1}" stroke="{colour}" stroke-width="2"/>"##
                );
            }
            let _ = writeln!(
                svg,
                r##"<circle cx="{:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"##,
                place(row.value)
            );
            text(&mut svg, (right + 8.0, y + 4.0), "start", &format!("{:.3}", row.value));
        }
        text(&mut svg, ((left + right) / 2.0, height - 6.0), "middle", &self.x_label);
        svg + "</svg>\n"
    }
}

fn opening(height: f64, title: &str) -> String {
    let title = escaped(title);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12" role="img" aria-label="{title}">
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{:.1}" y="18" text-anchor="middle" font-size="14">{title}</text>
"##,
        WIDTH / 2.0
    )
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, content: &str) {
    let content = escaped(content);
    let _ =
        writeln!(svg, r##"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}">{content}</text>"##, at.0, at.1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (low, high) in [(0.0, 1.0), (-0.3, 0.7), (3.0, 317.0), (0.0012, 0.0013), (5.5, 6.5)] {
            let ticks = ticks(low, high);
            assert!((3..=8).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (low..=high).contains(tick)));
        }
    }

    #[test]
    fn lines_survive_odd_numbers_and_names() {
        let series = Series {
            label: "a<b".into(),
            points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)],
            right: false,
        };
        let chart = LineChart {
            title: "loss & metric".into(),
            x_label: "step".into(),
            left_label: "loss".into(),
            right_label: String::new(),
            series: vec![series],
        };
        let svg = chart.svg();
        assert!(svg.contains("loss &amp; metric") && svg.contains("a&lt;b") && !svg.contains("NaN"), "{svg}");
        // Two finite points, from the left edge to the right one.
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(points.split(' ').count(), 2, "{points}");
        assert_eq!(svg, chart.svg());
        assert!(LineChart { series: Vec::new(), ..chart }.svg().ends_with("</svg>\n"));
    }

    #[test]
    fn intervals_stand_in_order() {
        let row = |label: &str, value| IntervalRow {
            label: label.into(),
            value,
            low: value - 0.1,
            high: value + 0.1,
        };
        let chart = IntervalChart {
            title: "t".into(),
            x_label: "x".into(),
            reference: Some(0.0),
            rows: vec![row("first", 0.5), row("second", -0.25)],
        };
        let svg = chart.svg();
        assert!(svg.find("first").unwrap() < svg.find("second").unwrap());
        // A long label gets the room it needs.
        let place = |svg: &str| -> f64 {
            let before = svg.split(" y2=").next().unwrap();
            before.rsplit("x2=\"").next().unwrap().trim_end_matches('"').parse().unwrap()
        };
        let wide =
            IntervalChart { rows: vec![row(&"long ".repeat(8), 0.5), row("b", -0.25)], ..chart.clone() };
        assert!(place(&wide.svg()) > place(&svg) + 50.0);
        assert!(svg.contains("-0.250") && svg.contains("stroke-dasharray"));
    }
}
