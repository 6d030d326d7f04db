//! Plots as SVG: horizontal bars in groups, with whiskers from least to most.

use std::fmt::Write as _;

use crate::sample::Spread;

/// Pixels.
const WIDTH: f64 = 860.0;
const LABELS: f64 = 190.0;
const NUMBERS: f64 = 90.0;
const TOP: f64 = 46.0;
const BAR: f64 = 14.0;
const GAP: f64 = 10.0;
/// Told apart in print and by eyes that see few colours (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"];

/// A bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// Bars of a group stand together under this label.
    pub(super) group: String,
    /// What it is of, by colour.
    pub(super) series: String,
    /// Its length.
    pub(super) value: Spread,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Its file's name, without ending.
    pub(super) name: &'static str,
    /// Its heading.
    pub(super) title: String,
    /// Unit of all bars.
    pub(super) unit: &'static str,
    /// The bars, those of a group next to each other.
    pub(super) bars: Vec<Bar>,
}

impl Plot {
    /// The file.
    pub(super) fn svg(&self) -> String {
        let mut series: Vec<&str> = Vec::new();
        for bar in &self.bars {
            if !series.contains(&bar.series.as_str()) {
                series.push(&bar.series);
            }
        }
        let longest = self.bars.iter().map(|bar| bar.value.max).fold(1e-9, f64::max);
        let scale = (WIDTH - LABELS - NUMBERS) / longest;
        let mut body = String::new();
        let mut y = TOP;
        let mut group = None;
        // Writing to a string never fails, here and below.
        for bar in &self.bars {
            if group != Some(bar.group.as_str()) {
                group = Some(&bar.group);
                y += GAP;
                let _infallible = writeln!(
                    body,
                    r#"<text x="{}" y="{:.0}" text-anchor="end">{}</text>"#,
                    LABELS - 8.0,
                    y + 11.0,
                    escaped(&bar.group)
                );
            }
            let colour = series.iter().position(|name| *name == bar.series).unwrap_or(0) % COLOURS.len();
            let at = |value: f64| LABELS + value.max(0.0) * scale;
            let Spread { median, min, max } = bar.value;
            let digits = if median < 10.0 { 2 } else { 0 };
            let _infallible = writeln!(
                body,
                r#"<rect x="{LABELS}" y="{y:.0}" width="{:.1}" height="{}" fill="{}"/><path d="M{:.1} {:.0}H{:.1}" stroke="black"/><text x="{:.1}" y="{:.0}">{median:.digits$} {}</text>"#,
                at(median) - LABELS,
                BAR - 2.0,
                COLOURS[colour],
                at(min),
                y + BAR / 2.0 - 1.0,
                at(max),
                at(max) + 6.0,
                y + 10.0,
                escaped(self.unit)
            );
            y += BAR;
        }
        let mut legend = String::new();
        let mut x = LABELS;
        for (number, name) in series.iter().enumerate() {
            let _infallible = writeln!(
                legend,
                r#"<rect x="{x}" y="28" width="10" height="10" fill="{}"/><text x="{}" y="37">{}</text>"#,
                COLOURS[number % COLOURS.len()],
                x + 15.0,
                escaped(name)
            );
            x += 26.0 + 6.2 * name.chars().count() as f64;
        }
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="8" y="18" font-size="14">{title}</text>
{legend}{body}</svg>
"##,
            height = y + GAP,
            title = escaped(&self.title)
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_inside_and_text_is_escaped() {
        let bar = |group: &str, median, max| Bar {
            group: group.to_owned(),
            series: "a<b".to_owned(),
            value: Spread { median, min: median / 2.0, max },
        };
        let plot = Plot {
            name: "p",
            title: "t & t".to_owned(),
            unit: "ns",
            bars: vec![bar("g", 10.0, 20.0), bar("h", 1.0, 2.0)],
        };
        let svg = plot.svg();
        assert!(svg.contains("t &amp; t") && svg.contains("a&lt;b") && !svg.contains("a<b"));
        let widths: Vec<f64> =
            svg.split("width=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
        assert!(widths.iter().all(|width| *width <= WIDTH - LABELS - NUMBERS), "{widths:?}");
    }
}
