//! The learning curve: what training measured goes in, and one SVG goes out that shows how the
//! return grew and which fixed workflows it passed.

use std::io;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::layout::spread;
use super::{one_line, text_width};

/// How the return of a team grew while it learned.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// Stands above the picture; may be empty.
    pub title: String,
    /// E.g. `episodes`.
    pub x_label: String,
    /// E.g. `mean return`.
    pub y_label: String,
    /// In ascending order of `x`; a point with a value that is not finite is left out.
    pub points: Vec<Point>,
    /// What to compare with, drawn as dashed lines.
    pub levels: Vec<Level>,
}

/// One window of episodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where the window ends, in episodes.
    pub x: f64,
    /// The mean over the window.
    pub mean: f64,
    /// The lower end of the 95% interval of the mean.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What a fixed workflow achieves.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// The name of the workflow.
    pub name: String,
    /// Its value, on the same axis as the curve.
    pub value: f64,
}

const SIZE: (u32, u32) = (960, 500);
pub(super) const TEXT_PX: f64 = 13.0;
const LEARNED: RGBColor = RGBColor(31, 95, 158);
pub(super) const INK: RGBColor = RGBColor(51, 65, 77);
pub(super) const GRID: RGBColor = RGBColor(228, 232, 236);
const COLOURS: [RGBColor; 6] = [
    RGBColor(192, 86, 33),
    RGBColor(43, 138, 75),
    RGBColor(128, 78, 160),
    RGBColor(160, 120, 0),
    RGBColor(190, 50, 90),
    RGBColor(20, 130, 140),
];

/// Draws the curve as an SVG document.
///
/// # Errors
///
/// When the drawing library fails, which for a drawing in memory is a bug.
pub fn svg(curve: &Curve) -> io::Result<String> {
    let mut out = String::new();
    draw(curve, &mut out).map_err(|e| io::Error::other(format!("cannot draw the learning curve: {e}")))?;
    Ok(out)
}

pub(super) type Failure = DrawingAreaErrorKind<io::Error>;

fn draw(curve: &Curve, out: &mut String) -> Result<(), Failure> {
    let finite = |p: &&Point| [p.x, p.mean, p.low, p.high].iter().all(|v| v.is_finite());
    let points: Vec<Point> = curve.points.iter().filter(finite).copied().collect();
    let levels: Vec<(String, f64)> = curve
        .levels
        .iter()
        .filter(|l| l.value.is_finite())
        .map(|l| (format!("{}  {}", one_line(&l.name, 30), short(l.value)), l.value))
        .collect();
    let names = levels.iter().map(|(name, _)| text_width(name, TEXT_PX)).fold(0.0, f64::max);
    let margin_right = if levels.is_empty() { 24 } else { names as i32 + 44 };

    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = one_line(&curve.title, 100);
    if !title.is_empty() {
        root.draw(&Text::new(title, (20, 16), font(18.0).style(FontStyle::Bold).color(&INK)))?;
    }
    let mut chart = ChartBuilder::on(&root)
        .margin_top(72)
        .margin_right(margin_right)
        .margin_bottom(10)
        .margin_left(10)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(x_range(&points), y_range(&points, &levels))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(one_line(&curve.x_label, 60))
        .y_desc(one_line(&curve.y_label, 40))
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .label_style(font(TEXT_PX).color(&INK))
        .axis_desc_style(font(TEXT_PX + 1.0).color(&INK))
        .draw()?;

    let x_last = chart.x_range().end;
    let x_first = chart.x_range().start;
    for (index, (_, value)) in levels.iter().enumerate() {
        let ends = [(x_first, *value), (x_last, *value)];
        chart.draw_series(DashedLineSeries::new(ends, 6, 4, colour(index).stroke_width(1)))?;
    }
    let band = points.iter().map(|p| (p.x, p.low)).chain(points.iter().rev().map(|p| (p.x, p.high)));
    if !points.is_empty() {
        chart.draw_series([Polygon::new(band.collect::<Vec<_>>(), LEARNED.mix(0.2))])?;
        chart.draw_series(LineSeries::new(points.iter().map(|p| (p.x, p.mean)), LEARNED.stroke_width(2)))?;
    }
    draw_level_names(&root, &levels, |value| chart.backend_coord(&(x_last, value)))?;
    let (_, rows) = chart.plotting_area().get_pixel_range();
    draw_legend(&root, chart.plotting_area().get_pixel_range().0.end, rows.start - 16, !levels.is_empty())?;
    root.present()
}

/// To the right of the lines, pushed apart where the lines are too near to each other.
fn draw_level_names<'a>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    levels: &[(String, f64)],
    at: impl Fn(f64) -> (i32, i32),
) -> Result<(), Failure> {
    let mut order: Vec<usize> = (0..levels.len()).collect();
    order.sort_by(|&a, &b| levels[b].1.total_cmp(&levels[a].1));
    let wishes: Vec<(f64, f64)> = order.iter().map(|&i| (f64::from(at(levels[i].1).1), 1.0)).collect();
    for (&index, y) in order.iter().zip(spread(&wishes, &vec![TEXT_PX + 4.0; wishes.len()])) {
        let (name, value) = &levels[index];
        let (colour, (x, y_line)) = (colour(index), at(*value));
        let y = y.round() as i32;
        root.draw(&PathElement::new([(x + 2, y_line), (x + 14, y)], colour.stroke_width(1)))?;
        let style = font(TEXT_PX).color(&colour).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(name.clone(), (x + 19, y), style))?;
    }
    Ok(())
}

/// Above the plot, ending at `right`.
fn draw_legend<'a>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    right: i32,
    y: i32,
    with_levels: bool,
) -> Result<(), Failure> {
    let style = |h| font(TEXT_PX).color(&INK).pos(Pos::new(h, VPos::Center));
    let mut x = right;
    if with_levels {
        x -= text_width("measured at the end", TEXT_PX) as i32;
        root.draw(&Text::new("measured at the end", (x, y), style(HPos::Left)))?;
        for dash in [-38, -28, -18] {
            root.draw(&PathElement::new([(x + dash, y), (x + dash + 6, y)], INK.stroke_width(1)))?;
        }
        x -= 62;
    }
    let text = "while learning, with 95% interval";
    x -= text_width(text, TEXT_PX) as i32;
    root.draw(&Text::new(text, (x, y), style(HPos::Left)))?;
    root.draw(&Rectangle::new([(x - 38, y - 6), (x - 10, y + 6)], LEARNED.mix(0.2).filled()))?;
    root.draw(&PathElement::new([(x - 38, y), (x - 10, y)], LEARNED.stroke_width(2)))?;
    Ok(())
}

pub(super) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The SVG backend divides sizes by 1.24 again.
pub(super) fn font(size_px: f64) -> FontDesc<'static> {
    ("sans-serif", size_px * 1.24).into_font()
}

fn x_range(points: &[Point]) -> std::ops::Range<f64> {
    let low = points.iter().map(|p| p.x).reduce(f64::min).unwrap_or(0.0);
    let high = points.iter().map(|p| p.x).reduce(f64::max).unwrap_or(1.0);
    if low < high { low..high } else { low..low + 1.0 }
}

fn y_range(points: &[Point], levels: &[(String, f64)]) -> std::ops::Range<f64> {
    let values = || points.iter().flat_map(|p| [p.low, p.mean, p.high]).chain(levels.iter().map(|l| l.1));
    let low = values().reduce(f64::min).unwrap_or(0.0);
    let high = values().reduce(f64::max).unwrap_or(1.0);
    let pad = if low < high { 0.06 * (high - low) } else { 0.5 };
    low - pad..high + pad
}

/// A number with no more digits than an axis needs: 0.85, 12, 40k.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{}{unit}", if text == "-0" { "0" } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        let point = |x: f64| Point { x, mean: x / 9.0, low: x / 9.0 - 0.1, high: x / 9.0 + 0.1 };
        let level = |name: &str, value| Level { name: name.into(), value };
        let mut points: Vec<Point> = (0..9).map(f64::from).map(point).collect();
        points.push(point(f64::NAN));
        let levels = vec![
            level("<one> & two\u{1}", 0.5),
            level("three", 0.5),
            level("none", f64::INFINITY),
            level("four", 0.5),
        ];
        Curve { title: "a < b".into(), points, levels, ..Curve::default() }
    }

    #[test]
    fn names_are_escaped_and_numbers_finite() {
        let picture = svg(&curve()).unwrap();
        assert!(picture.contains("&lt;one&gt; &amp; two\u{fffd}") && picture.contains("a &lt; b"));
        assert!(!picture.contains("NaN") && !picture.contains("inf") && !picture.contains("none  "));
        assert_eq!(picture, svg(&curve()).unwrap());
    }

    #[test]
    fn names_of_equal_levels_stand_apart() {
        let picture = svg(&curve()).unwrap();
        let y = |name: &str| -> f64 {
            let tag = &picture[..picture.find(name).unwrap()];
            let tag = &tag[tag.rfind(" y=\"").unwrap() + 4..];
            tag[..tag.find('"').unwrap()].parse().unwrap()
        };
        assert!(y("three") - y("&lt;one") >= TEXT_PX && y("four") - y("three") >= TEXT_PX);
    }

    #[test]
    fn nothing_to_draw_is_a_picture_too() {
        let one = Point { x: 3.0, mean: 1.0, low: 1.0, high: 1.0 };
        for points in [vec![], vec![one]] {
            let picture = svg(&Curve { points, ..Curve::default() }).unwrap();
            assert!(picture.starts_with("<svg") && !picture.contains("NaN"));
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.85, 0.8049, -0.0, 12.0, 1500.0, 40_000.0, 2e6].map(short).join(" "),
            "0.85 0.805 0 12 1.5k 40k 2M"
        );
    }
}
