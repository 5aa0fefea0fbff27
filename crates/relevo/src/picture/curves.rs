//! Several curves in one picture, such as what arms came to with what they had spent: data go in, and one SVG comes out.

use std::io;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{
    curve::{Failure, GRID, INK, Point, TEXT_PX, colour, font, short},
    layout::spread,
    one_line, text_width,
};

/// Curves that share their axes.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Stands above the picture; may be empty.
    pub title: String,
    /// E.g. `tokens`.
    pub x_label: String,
    /// E.g. `quality per task`.
    pub y_label: String,
    /// The curves: their names, and their points in ascending order of `x`. Points with a value that is not finite, and
    /// curves without points, are left out.
    pub curves: Vec<(String, Vec<Point>)>,
}

const SIZE: (u32, u32) = (960, 460);

/// Draws the curves, each with its band and with its name at its end, as an SVG document.
///
/// # Errors
///
/// When the drawing library fails, which for a drawing in memory is a bug.
pub fn svg(curves: &Curves) -> io::Result<String> {
    let mut out = String::new();
    draw(curves, &mut out).map_err(|e| io::Error::other(format!("cannot draw the curves: {e}")))?;
    Ok(out)
}

fn draw(all: &Curves, out: &mut String) -> Result<(), Failure> {
    let finite = |p: &&Point| [p.x, p.mean, p.low, p.high].iter().all(|v| v.is_finite());
    let curves = all.curves.iter().map(|(name, points)| {
        (one_line(name, 30), points.iter().filter(finite).copied().collect::<Vec<Point>>())
    });
    let curves: Vec<(String, Vec<Point>)> = curves.filter(|(_, points)| !points.is_empty()).collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    let names = curves.iter().map(|(name, _)| text_width(name, TEXT_PX)).fold(0.0, f64::max);
    let x_last = points().map(|p| p.x).reduce(f64::max).filter(|x| *x > 0.0).unwrap_or(1.0);
    let low = points().map(|p| p.low).reduce(f64::min).unwrap_or(0.0);
    let high = points().map(|p| p.high).reduce(f64::max).unwrap_or(1.0);
    let pad = if low < high { 0.06 * (high - low) } else { 0.5 };

    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = one_line(&all.title, 100);
    if !title.is_empty() {
        root.draw(&Text::new(title, (20, 16), font(18.0).style(FontStyle::Bold).color(&INK)))?;
    }
    let mut chart = ChartBuilder::on(&root)
        .margin_top(52)
        .margin_right(names as i32 + 44)
        .margin_bottom(10)
        .margin_left(10)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(0.0..x_last, low - pad..high + pad)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(one_line(&all.x_label, 60))
        .y_desc(one_line(&all.y_label, 40))
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .label_style(font(TEXT_PX).color(&INK))
        .axis_desc_style(font(TEXT_PX + 1.0).color(&INK))
        .draw()?;
    for (at, (_, points)) in curves.iter().enumerate() {
        let band = points.iter().map(|p| (p.x, p.low)).chain(points.iter().rev().map(|p| (p.x, p.high)));
        chart.draw_series([Polygon::new(band.collect::<Vec<_>>(), colour(at).mix(0.12))])?;
    }
    for (at, (_, points)) in curves.iter().enumerate() {
        let line = points.iter().map(|p| (p.x, p.mean));
        chart.draw_series(LineSeries::new(line.clone(), colour(at).stroke_width(2)))?;
        chart.draw_series(line.map(|point| Circle::new(point, 3, colour(at).filled())))?;
    }
    // The names, to the right of the plot, pushed apart where the ends are too near to each other.
    let ends: Vec<(i32, i32)> =
        curves.iter().map(|(_, p)| chart.backend_coord(&(p[p.len() - 1].x, p[p.len() - 1].mean))).collect();
    let right = chart.plotting_area().get_pixel_range().0.end;
    let mut order: Vec<usize> = (0..curves.len()).collect();
    order.sort_by_key(|&at| ends[at].1);
    let wishes: Vec<(f64, f64)> = order.iter().map(|&at| (f64::from(ends[at].1), 1.0)).collect();
    for (&at, y) in order.iter().zip(spread(&wishes, &vec![TEXT_PX + 4.0; wishes.len()])) {
        let y = y.round() as i32;
        root.draw(&PathElement::new([ends[at], (right + 14, y)], colour(at).mix(0.5).stroke_width(1)))?;
        let style = font(TEXT_PX).color(&colour(at)).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(curves[at].0.clone(), (right + 19, y), style))?;
    }
    root.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_whatever_they_hold() {
        let point = |x: f64, mean: f64| Point { x, mean, low: mean, high: mean };
        let curves = vec![
            ("<a>".to_owned(), vec![point(1.0, 0.5), point(f64::NAN, 1.0), point(3.0, 0.5)]),
            ("b".to_owned(), vec![point(2.0, 0.5)]),
            ("none".to_owned(), vec![]),
        ];
        let picture = svg(&Curves { curves, title: "t".into(), ..Curves::default() }).unwrap();
        assert!(picture.contains("&lt;a&gt;") && !picture.contains("none\n") && !picture.contains("NaN"));
        assert!(svg(&Curves::default()).unwrap().starts_with("<svg"));
    }
}
