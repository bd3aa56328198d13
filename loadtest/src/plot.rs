//! Plots as SVG, made of lines over two axes. Colours are classes, so that the page that holds a plot decides them for
//! light and dark; there is nothing that loads, and nothing that runs.

use std::fmt::Write;

mod scale;

use scale::Scale;
pub(crate) use scale::{Kind, MINUTES_FROM_S};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
const RIGHT: f64 = 22.0;
/// About the width of a digit of the plots' text.
const DIGIT: f64 = 7.2;
/// How near to each other marks may be before they share a label.
const MARK_GAP: f64 = 22.0;
/// The highest that a threshold may stand above the values on a linear axis without flattening them.
const THRESHOLD_STRETCH: f64 = 1.6;

/// An axis: what it measures, with the unit, and how.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) kind: Kind,
}

impl Axis {
    pub(crate) fn new(label: &str, kind: Kind) -> Self {
        Self { label: label.to_owned(), kind }
    }
}

/// A line, with gaps where a value is not known.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Option<f64>)>,
    pub(crate) look: Look,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Look {
    /// One of the page's colours, from 0.
    pub(crate) colour: usize,
    /// For what is planned, or another's.
    pub(crate) dashed: bool,
    /// The line's own points are left out; there are [`Dot`]s for them.
    pub(crate) faint: bool,
}

/// A single value.
#[derive(Clone, Debug)]
pub(crate) struct Dot {
    pub(crate) at: (f64, f64),
    pub(crate) colour: usize,
    /// For values that do not count.
    pub(crate) hollow: bool,
    /// Shown when a pointer rests on it.
    pub(crate) title: String,
}

/// A level that values should stay below.
#[derive(Clone, Debug)]
pub(crate) struct Threshold {
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// A plot.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// For those who do not see it.
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    pub(crate) dots: Vec<Dot>,
    pub(crate) thresholds: Vec<Threshold>,
    /// Moments on the x axis; they are numbered from 1.
    pub(crate) marks: Vec<f64>,
}

impl Plot {
    pub(crate) fn new(title: &str, x: Axis, y: Axis) -> Self {
        Self {
            title: title.to_owned(),
            x,
            y,
            lines: Vec::new(),
            dots: Vec::new(),
            thresholds: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Adds a line unless it has no value.
    pub(crate) fn line(
        &mut self,
        name: &str,
        look: Look,
        points: impl IntoIterator<Item = (f64, Option<f64>)>,
    ) {
        let points: Vec<_> = points.into_iter().collect();
        if points.iter().any(|(_, value)| value.is_some()) {
            self.lines.push(Line { name: name.to_owned(), points, look });
        }
    }

    /// The drawing; none when there is nothing to draw.
    pub(crate) fn svg(&self) -> Option<String> {
        let mut values = self.values();
        if values.is_empty() {
            return None;
        }
        let highest = values.iter().map(|(_, y)| *y).fold(0.0, f64::max);
        let first_x = values[0].0;
        let near = |value: f64| self.y.kind == Kind::Log || value <= THRESHOLD_STRETCH * highest;
        let thresholds: Vec<&Threshold> =
            self.thresholds.iter().filter(|threshold| near(threshold.value)).collect();
        values.extend(thresholds.iter().map(|threshold| (first_x, threshold.value)));

        let y = Scale::new(self.y.kind, values.iter().map(|(_, y)| *y), (HEIGHT - BOTTOM, TOP));
        let y_ticks = y.ticks();
        let digits = y_ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(1);
        let left = 16.0 + DIGIT * digits as f64;
        let x = Scale::new(self.x.kind, values.iter().map(|(x, _)| *x), (left, WIDTH - RIGHT));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title)
        );
        self.frame(&mut svg, left, &x, &y_ticks, &y);
        self.marks(&mut svg, &x);
        for threshold in thresholds {
            level(&mut svg, threshold, left, y.at(threshold.value));
        }
        for line in &self.lines {
            trace(&mut svg, line, &x, &y);
        }
        for dot in &self.dots {
            let class = if dot.hollow { "hollow" } else { "dot" };
            push(
                &mut svg,
                format_args!(
                    "<circle class=\"{class} c{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{}</title></circle>\n",
                    dot.colour,
                    x.at(dot.at.0),
                    y.at(dot.at.1),
                    escape(&dot.title)
                ),
            );
        }
        svg.push_str("</svg>");
        Some(svg)
    }

    /// Everything that must be seen.
    fn values(&self) -> Vec<(f64, f64)> {
        let of_lines = self.lines.iter().flat_map(|line| &line.points);
        let of_lines = of_lines.filter_map(|(x, y)| y.map(|y| (*x, y)));
        let all = of_lines.chain(self.dots.iter().map(|dot| dot.at));
        all.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    }

    fn frame(&self, svg: &mut String, left: f64, x: &Scale, y_ticks: &[(f64, String)], y: &Scale) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in y_ticks {
            let at = y.at(*value);
            push(
                svg,
                format_args!(
                    "<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>\
                     <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>\n",
                    left - 6.0,
                    at + 4.0
                ),
            );
        }
        for (value, label) in x.ticks() {
            let at = x.at(value);
            push(
                svg,
                format_args!(
                    "<path class=\"axis\" d=\"M{at:.1} {bottom:.1}v4\"/>\
                     <text class=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{label}</text>\n",
                    bottom + 18.0
                ),
            );
        }
        push(
            svg,
            format_args!(
                "<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/>\
                 <text class=\"label\" x=\"2\" y=\"12\">{}</text>\
                 <text class=\"label end\" x=\"{right:.1}\" y=\"{:.1}\">{}</text>\n",
                escape(&self.y.label),
                HEIGHT - 6.0,
                escape(&self.x.label)
            ),
        );
    }

    /// Marks that would stand on each other have one label.
    fn marks(&self, svg: &mut String, x: &Scale) {
        let within = self.marks.iter().enumerate().filter(|(_, value)| x.holds(**value));
        let places: Vec<(usize, f64)> = within.map(|(index, value)| (index + 1, x.at(*value))).collect();
        let (top, bottom) = (TOP - 2.0, HEIGHT - BOTTOM);
        for (_, at) in &places {
            push(svg, format_args!("<path class=\"mark\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/>\n"));
        }
        for group in places.chunk_by(|(_, left), (_, right)| right - left < MARK_GAP) {
            let ((first, from), (last, to)) = (group[0], group[group.len() - 1]);
            let label = if first == last { first.to_string() } else { format!("{first}–{last}") };
            push(
                svg,
                format_args!(
                    "<text class=\"mark middle\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>\n",
                    (from + to) / 2.0,
                    top - 3.0
                ),
            );
        }
    }
}

fn level(svg: &mut String, threshold: &Threshold, left: f64, at: f64) {
    let right = WIDTH - RIGHT;
    push(
        svg,
        format_args!(
            "<path class=\"level\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>\
             <text class=\"level\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            left + 4.0,
            at - 4.0,
            escape(&threshold.label)
        ),
    );
}

/// Draws a line's stretches without gaps. A value between two gaps is a dot, or it would not be seen.
fn trace(svg: &mut String, line: &Line, x: &Scale, y: &Scale) {
    let Look { colour, dashed, faint } = line.look;
    let mut path = String::new();
    let mut alone = Vec::new();
    for stretch in line.points.split(|(_, value)| value.is_none()) {
        let points = stretch.iter().filter_map(|(at, value)| value.map(|value| (x.at(*at), y.at(value))));
        let points: Vec<(f64, f64)> = points.collect();
        match points[..] {
            [] => {}
            [point] => alone.push(point),
            _ => {
                for (index, (at, value)) in points.iter().enumerate() {
                    push(&mut path, format_args!("{}{at:.1} {value:.1}", if index == 0 { 'M' } else { 'L' }));
                }
            }
        }
    }
    if !path.is_empty() {
        let dashed = if dashed { " dashed" } else { "" };
        let faint_class = if faint { " faint" } else { "" };
        push(svg, format_args!("<path class=\"line c{colour}{dashed}{faint_class}\" d=\"{path}\"/>\n"));
    }
    for (at, value) in alone.into_iter().filter(|_| !faint) {
        push(
            svg,
            format_args!("<circle class=\"dot c{colour}\" cx=\"{at:.1}\" cy=\"{value:.1}\" r=\"2.5\"/>\n"),
        );
    }
}

/// Text that may stand in an element or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn push(to: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = to.write_fmt(text);
}

#[cfg(test)]
mod tests;
