//! Curves with bands, as SVG and as PNG.

use std::{
    io,
    sync::{Arc, LazyLock},
};

use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use resvg::{tiny_skia, usvg};

use crate::experiment::Plot;

const COLOURS: [RGBColor; 10] = [
    RGBColor(31, 95, 158),
    RGBColor(192, 86, 33),
    RGBColor(43, 138, 75),
    RGBColor(128, 78, 160),
    RGBColor(160, 120, 0),
    RGBColor(190, 50, 90),
    RGBColor(20, 130, 140),
    RGBColor(90, 90, 90),
    RGBColor(120, 160, 40),
    RGBColor(100, 60, 30),
];
const INK: RGBColor = RGBColor(51, 65, 77);
const GRID: RGBColor = RGBColor(228, 232, 236);
const WIDTH: u32 = 960;
/// Height of the chart without the legend.
const HEIGHT: u32 = 432;
/// PNGs have so many pixels per unit of the SVG.
const PIXELS: f32 = 1.5;

/// Draw the plot; numbers that are not finite are left out, and those that have no logarithm where one is drawn.
///
/// # Errors
///
/// When the drawing library fails, which for a drawing in memory is a bug.
pub fn svg(plot: &Plot) -> io::Result<String> {
    let mut out = String::new();
    draw(plot, &mut out).map_err(|e| io::Error::other(format!("{}: cannot be drawn: {e}", plot.name)))?;
    Ok(out)
}

/// The PNG of an SVG that [`svg`] gave; its letters are part of the program, so that it looks the same everywhere.
///
/// # Errors
///
/// When the renderer fails, which for a drawing of our own is a bug.
pub fn png(svg: &str) -> io::Result<Vec<u8>> {
    static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.load_font_data(dejavu::sans::bold().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    });
    let options = usvg::Options { fontdb: FONTS.clone(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(io::Error::other)?;
    let size = tree.size().to_int_size().scale_by(PIXELS).expect("a drawing has an extent");
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height()).expect("a drawing has an extent");
    resvg::render(&tree, tiny_skia::Transform::from_scale(PIXELS, PIXELS), &mut pixels.as_mut());
    pixels.encode_png().map_err(io::Error::other)
}

type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn font(size: f64) -> FontDesc<'static> {
    ("sans-serif", size).into_font()
}

fn draw(plot: &Plot, out: &mut String) -> Drawn {
    let shown = |p: &&[f64; 4]| p.iter().all(|v| v.is_finite()) && drawable(plot, p);
    let all: Vec<&[f64; 4]> = plot.series.iter().flat_map(|s| &s.points).filter(shown).collect();
    let levels = plot.levels.iter().map(|(_, y)| *y).filter(|y| y.is_finite() && (!plot.y_log || *y > 0.0));
    let x = axis(&mut all.iter().map(|p| p[0]), plot.x_log, 0.0);
    let y = axis(&mut all.iter().flat_map(|p| [p[1], p[3]]).chain(levels), plot.y_log, 0.05);
    let x = if plot.x_log { x } else { x.start.min(0.0)..x.end };

    let row = 20;
    let top = 48 + row * plot.series.len().div_ceil(2) as i32;
    let root = SVGBackend::with_string(out, (WIDTH, HEIGHT + top as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw(&Text::new(plot.title.clone(), (20, 14), font(18.0).style(FontStyle::Bold).color(&INK)))?;
    for (i, series) in plot.series.iter().enumerate() {
        let (x, y) = (80 + 430 * (i as i32 % 2), 48 + row * (i as i32 / 2));
        let colour = COLOURS[i % COLOURS.len()];
        root.draw(&PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)))?;
        let style = font(13.0).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(series.name.clone(), (x + 32, y), style))?;
    }
    let area = root.margin(top, 10, 10, 24);
    match (plot.x_log, plot.y_log) {
        (false, false) => curves(plot, &area, x, y)?,
        (true, false) => curves(plot, &area, x.log_scale(), y)?,
        (false, true) => curves(plot, &area, x, y.log_scale())?,
        (true, true) => curves(plot, &area, x.log_scale(), y.log_scale())?,
    }
    root.present()
}

/// Whether a point has a place on the axes.
fn drawable(plot: &Plot, [x, low, middle, high]: &[f64; 4]) -> bool {
    (!plot.x_log || *x > 0.0) && (!plot.y_log || low.min(*middle).min(*high) > 0.0)
}

/// From the smallest to the largest number, and a little more, also where there is one number or none.
fn axis(numbers: &mut dyn Iterator<Item = f64>, log: bool, margin: f64) -> core::ops::Range<f64> {
    let (low, high) =
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    match (low.is_finite(), log) {
        (false, false) => 0.0..1.0,
        (false, true) => 1.0..10.0,
        (true, false) if low < high => low - margin * (high - low)..high + margin * (high - low),
        (true, false) => low - 1.0..high + 1.0,
        (true, true) if low < high => {
            let room = (high / low).powf(margin);
            low / room..high * room
        }
        (true, true) => low / 2.0..high * 2.0,
    }
}

/// Short: 0.05, 250, 20k, 3M, 1e-4.
fn label(x: &f64) -> String {
    let short = |x: f64| {
        let text = format!("{x:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match x.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e9).contains(&size) => format!("{x:e}"),
        size if size >= 1e6 => short(x / 1e6) + "M",
        size if size >= 1e4 => short(x / 1e3) + "k",
        _ => short(*x),
    }
}

fn curves<X, Y>(plot: &Plot, area: &Area<'_>, x: X, y: Y) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart =
        ChartBuilder::on(area).x_label_area_size(48).y_label_area_size(72).build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(plot.x_label.clone())
        .y_desc(plot.y_label.clone())
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .label_style(font(13.0).color(&INK))
        .axis_desc_style(font(14.0).color(&INK))
        .draw()?;
    let ends = chart.x_range();
    for (name, y) in plot.levels.iter().filter(|(_, y)| y.is_finite() && (!plot.y_log || *y > 0.0)) {
        let line = [(ends.start, *y), (ends.end, *y)];
        chart.draw_series(DashedLineSeries::new(line, 6, 4, INK.stroke_width(1)))?;
        let style = font(12.0).color(&INK).pos(Pos::new(HPos::Right, VPos::Bottom));
        chart.draw_series([Text::new(name.clone(), (ends.end, *y), style)])?;
    }
    for (i, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let shown = |p: &&[f64; 4]| p.iter().all(|v| v.is_finite()) && drawable(plot, p);
        let points: Vec<&[f64; 4]> = series.points.iter().filter(shown).collect();
        if points.is_empty() {
            continue;
        }
        let band = points.iter().map(|p| (p[0], p[1])).chain(points.iter().rev().map(|p| (p[0], p[3])));
        chart.draw_series([Polygon::new(band.collect::<Vec<_>>(), colour.mix(0.12))])?;
        chart.draw_series(LineSeries::new(points.iter().map(|p| (p[0], p[2])), colour.stroke_width(2)))?;
        if points.len() <= 12 {
            let dots = points.iter().map(|p| Circle::new((p[0], p[2]), 3, colour.filled()));
            chart.draw_series(dots)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Series;

    #[test]
    fn labels_are_short() {
        let labels = [0.0, 0.05, 250.0, -1.5, 20_000.0, 3e6, 1e-4, 1e12].map(|x| label(&x));
        assert_eq!(labels, ["0", "0.05", "250", "-1.5", "20k", "3M", "1e-4", "1e12"]);
    }

    /// Whatever the numbers, there is a picture.
    #[test]
    fn every_plot_can_be_drawn() {
        let hard: [Vec<[f64; 4]>; 5] = [
            vec![],
            vec![[1.0; 4]],
            vec![[0.0; 4], [-1.0; 4]],
            vec![[f64::NAN; 4], [1.0, f64::INFINITY, 2.0, 3.0]],
            vec![[1.0, 0.1, 0.2, 0.3], [1e7, 1e-9, 1e-8, 1e-7]],
        ];
        for points in hard {
            for (x_log, y_log) in [(false, false), (true, false), (false, true), (true, true)] {
                let series = vec![Series { name: "a & b".to_owned(), points: points.clone() }];
                let levels = vec![("goal".to_owned(), 0.5), ("none".to_owned(), f64::NAN)];
                let plot = Plot { x_log, y_log, series, levels, ..Plot::default() };
                let drawn = svg(&plot).expect("it is drawn");
                assert!(drawn.ends_with("</svg>\n"), "{drawn}");
            }
        }
        let image = png(&svg(&Plot::default()).expect("it is drawn")).expect("it is rendered");
        assert!(image.starts_with(b"\x89PNG"));
    }
}
