//! The decision map: what the team does in each situation, as rows of squares, one column a choice. Readable where a diagram
//! of handoffs is a tangle: many agents, each of which may hand to every other.

use std::fmt::Write;

use super::{
    diagram::{escaped, text},
    one_line, text_width,
};

/// Who is chosen, situation by situation.
#[derive(Clone, Debug, Default)]
pub struct DecisionMap {
    /// Stands above the map.
    pub title: String,
    /// Names of the columns.
    pub choices: Vec<String>,
    /// One row a situation.
    pub rows: Vec<Row>,
}

/// One situation.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub situation: String,
    /// How many decisions were taken in it.
    pub decisions: usize,
    /// The share of each choice, in [0, 1], by column.
    pub shares: Vec<f64>,
}

const CELL: f64 = 34.0;
const TEXT_PX: f64 = 13.0;
const SMALL_PX: f64 = 10.5;
const TITLE_PX: f64 = 18.0;
const MARGIN: f64 = 20.0;
/// Shares below this are not drawn.
const SHARE_MIN: f64 = 0.005;

/// Draws the map as an SVG document.
pub fn svg(map: &DecisionMap) -> String {
    let widest = |names: &mut dyn Iterator<Item = &String>| {
        names.map(|n| text_width(&one_line(n, 130), TEXT_PX)).fold(0.0, f64::max)
    };
    let label = widest(&mut map.rows.iter().map(|r| &r.situation)) + 16.0;
    let counts = 80.0;
    // Column names stand on their side.
    let head = widest(&mut map.choices.iter()) + 12.0;
    let top = MARGIN + TITLE_PX + 14.0 + head;
    let left = MARGIN + label;
    let title = one_line(&map.title, 120);
    let width = (left + map.choices.len() as f64 * CELL + counts + MARGIN)
        .max(text_width(&title, TITLE_PX) + 2.0 * MARGIN)
        .ceil();
    let height = (top + map.rows.len() as f64 * CELL + MARGIN).ceil();
    let mut body = String::new();
    text(&mut body, [MARGIN, MARGIN + TITLE_PX], TITLE_PX, "fill=\"#1b2733\" font-weight=\"bold\"", &title);
    for (i, name) in map.choices.iter().enumerate() {
        let (x, y) = (left + (i as f64 + 0.5) * CELL + 4.0, top - 8.0);
        let _ = writeln!(body, "<g transform=\"translate({x:.1} {y:.1}) rotate(-90)\">");
        text(&mut body, [0.0, 0.0], TEXT_PX, "fill=\"#33414d\"", &one_line(name, 60));
        body += "</g>\n";
    }
    for (r, row) in map.rows.iter().enumerate() {
        let y = top + r as f64 * CELL;
        text(
            &mut body,
            [MARGIN, y + CELL / 2.0 + 4.5],
            TEXT_PX,
            "fill=\"#33414d\"",
            &one_line(&row.situation, 130),
        );
        for (c, choice) in map.choices.iter().enumerate() {
            let x = left + c as f64 * CELL;
            let share = row.shares.get(c).copied().filter(|s| s.is_finite()).unwrap_or(0.0).clamp(0.0, 1.0);
            let _ = writeln!(
                body,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"4\" fill=\"#eef2f5\"/>",
                x + 1.5,
                y + 1.5,
                CELL - 3.0,
                CELL - 3.0
            );
            if share < SHARE_MIN {
                continue;
            }
            let _ = writeln!(
                body,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"4\" fill=\"#2f6ea8\" \
                 fill-opacity=\"{:.3}\"><title>{} → {}: {:.1}%</title></rect>",
                x + 1.5,
                y + 1.5,
                CELL - 3.0,
                CELL - 3.0,
                0.15 + 0.85 * share,
                escaped(&row.situation),
                escaped(choice),
                100.0 * share
            );
            let percent = format!("{:.0}", 100.0 * share);
            let at = [x + (CELL - text_width(&percent, SMALL_PX)) / 2.0, y + CELL / 2.0 + 3.5];
            let fill = if share > 0.45 { "fill=\"#ffffff\"" } else { "fill=\"#1b2733\"" };
            text(&mut body, at, SMALL_PX, fill, &percent);
        }
        let x = left + map.choices.len() as f64 * CELL + 10.0;
        let n = format!("{} ×", row.decisions);
        text(&mut body, [x, y + CELL / 2.0 + 4.0], SMALL_PX, "fill=\"#5b6770\"", &n);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" role=\"img\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n",
        escaped(&title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_odd_numbers_are_left_out() {
        let row = Row { situation: "a<b".into(), decisions: 3, shares: vec![1.0, f64::NAN] };
        let map =
            DecisionMap { title: "t&t".into(), choices: vec!["x".into(), "y\"".into()], rows: vec![row] };
        let picture = svg(&map);
        assert!(picture.contains("a&lt;b") && picture.contains("t&amp;t") && !picture.contains("NaN"));
        assert_eq!(picture, svg(&map));
    }
}
