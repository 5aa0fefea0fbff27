//! Curves with bands, as SVG.

use std::io;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::experiment::Plot;

const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 95, 158),
    RGBColor(192, 86, 33),
    RGBColor(43, 138, 75),
    RGBColor(128, 78, 160),
    RGBColor(160, 120, 0),
    RGBColor(190, 50, 90),
    RGBColor(20, 130, 140),
    RGBColor(90, 90, 90),
];
const INK: RGBColor = RGBColor(51, 65, 77);
const GRID: RGBColor = RGBColor(228, 232, 236);

/// Draw the plot; numbers that are not finite are left out.
///
/// # Errors
///
/// When the drawing library fails, which for a drawing in memory is a bug.
pub fn svg(plot: &Plot) -> io::Result<String> {
    let mut out = String::new();
    draw(plot, &mut out).map_err(|e| io::Error::other(format!("{}: cannot be drawn: {e}", plot.name)))?;
    Ok(out)
}

fn draw(plot: &Plot, out: &mut String) -> Result<(), DrawingAreaErrorKind<io::Error>> {
    let finite = |p: &&[f64; 4]| p.iter().all(|v| v.is_finite());
    let all: Vec<&[f64; 4]> = plot.series.iter().flat_map(|s| &s.points).filter(finite).collect();
    let ends = |numbers: &mut dyn Iterator<Item = f64>| {
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let (x_low, x_high) = ends(&mut all.iter().map(|p| p[0]));
    let levels = plot.levels.iter().map(|(_, y)| *y);
    let (y_low, y_high) = ends(&mut all.iter().flat_map(|p| [p[1], p[3]]).chain(levels));
    let (x_low, x_high) = if x_low < x_high { (x_low.min(0.0), x_high) } else { (0.0, 1.0) };
    let pad = if y_low < y_high { 0.05 * (y_high - y_low) } else { 1.0 };
    let (y_low, y_high) = if y_low.is_finite() { (y_low - pad, y_high + pad) } else { (0.0, 1.0) };

    let row = 20;
    let top = 48 + row * plot.series.len().div_ceil(2) as i32;
    let root = SVGBackend::with_string(out, (960, 480 + top as u32 - 48)).into_drawing_area();
    root.fill(&WHITE)?;
    let font = |size: f64| ("sans-serif", size).into_font();
    root.draw(&Text::new(plot.title.clone(), (20, 14), font(18.0).style(FontStyle::Bold).color(&INK)))?;
    for (i, series) in plot.series.iter().enumerate() {
        let (x, y) = (80 + 430 * (i as i32 % 2), 48 + row * (i as i32 / 2));
        let colour = COLOURS[i % COLOURS.len()];
        root.draw(&PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)))?;
        let style = font(13.0).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(series.name.clone(), (x + 32, y), style))?;
    }
    let mut chart = ChartBuilder::on(&root)
        .margin_top(top)
        .margin_right(24)
        .margin_bottom(10)
        .margin_left(10)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(x_low..x_high, y_low..y_high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(plot.x_label.clone())
        .y_desc(plot.y_label.clone())
        .label_style(font(13.0).color(&INK))
        .axis_desc_style(font(14.0).color(&INK))
        .draw()?;
    for (name, y) in plot.levels.iter().filter(|(_, y)| y.is_finite()) {
        chart.draw_series(DashedLineSeries::new([(x_low, *y), (x_high, *y)], 6, 4, INK.stroke_width(1)))?;
        let style = font(12.0).color(&INK).pos(Pos::new(HPos::Right, VPos::Bottom));
        chart.draw_series([Text::new(name.clone(), (x_high, *y), style)])?;
    }
    for (i, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<&[f64; 4]> = series.points.iter().filter(finite).collect();
        if points.is_empty() {
            continue;
        }
        let band = points.iter().map(|p| (p[0], p[1])).chain(points.iter().rev().map(|p| (p[0], p[3])));
        chart.draw_series([Polygon::new(band.collect::<Vec<_>>(), colour.mix(0.12))])?;
        chart.draw_series(LineSeries::new(points.iter().map(|p| (p[0], p[2])), colour.stroke_width(2)))?;
    }
    root.present()
}
