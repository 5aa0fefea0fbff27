//! The learned handoffs of a team: shares of tasks come in from an evaluation, and one SVG goes
//! out, a panel for each starting situation.
//!
//! ```
//! use relevo::picture::diagram::{Arrow, Diagram, Node, NodeKind, Panel, svg};
//!
//! let node = |name: &str, kind| Node { name: name.into(), kind };
//! let nodes = vec![node("intake", NodeKind::Start), node("solver", NodeKind::Agent), node("finish", NodeKind::Finish)];
//! let arrow = |from, to| Arrow { from, to, share: 1.0, label: "100%".into() };
//! let panel = Panel { caption: "value .91".into(), nodes, arrows: vec![arrow(0, 1), arrow(1, 2)] };
//! let picture = svg(&Diagram { panels: vec![panel], ..Diagram::default() });
//! assert!(picture.starts_with("<svg"));
//! ```

use std::fmt::Write;

use super::layout::{self, Cubic, Layout, Line, Rect, length};
use super::{one_line, text_width};

/// What a team has learned, as a picture.
#[derive(Clone, Debug, Default)]
pub struct Diagram {
    /// Stands above the panels; may be empty.
    pub title: String,
    /// One for each starting situation, drawn in a grid.
    pub panels: Vec<Panel>,
    /// Arrows that a smaller share of tasks takes are not drawn; the picture then says so.
    pub share_min: f64,
    /// Arrows that a smaller share of tasks takes are drawn without their label.
    pub label_share_min: f64,
}

/// The handoffs from one starting situation.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// The situation and what the team achieves there, e.g. `dataset=mathqa   value .834 ± .005`.
    pub caption: String,
    /// The team; agents that no drawn arrow touches are greyed.
    pub nodes: Vec<Node>,
    /// The handoffs between them.
    pub arrows: Vec<Arrow>,
}

/// An agent, or one end of the way.
#[derive(Clone, Debug)]
pub struct Node {
    /// Any text; long names are cut.
    pub name: String,
    /// Decides the colour and the place.
    pub kind: NodeKind,
}

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Where tasks come in.
    Start,
    /// A member of the team.
    Agent,
    /// Where tasks are done.
    Finish,
}

/// Handoffs from one node to another, or to itself.
#[derive(Clone, Debug)]
pub struct Arrow {
    /// Index into [`Panel::nodes`]; an arrow with an index beyond them is not drawn.
    pub from: usize,
    /// Index into [`Panel::nodes`].
    pub to: usize,
    /// The share of tasks that take it, from 0; decides how heavy the line is.
    pub share: f64,
    /// E.g. `62%`; may be empty.
    pub label: String,
}

const NAME_PX: f64 = 14.0;
const LABEL_PX: f64 = 11.0;
const CAPTION_PX: f64 = 13.0;
const TITLE_PX: f64 = 18.0;
const MARGIN: f64 = 20.0;
const PADDING: f64 = 18.0;
const CAPTION_HEIGHT: f64 = 34.0;
const WIDTH_WANTED: f64 = 1240.0;

/// Draws the diagram as an SVG document.
pub fn svg(diagram: &Diagram) -> String {
    let drawn: Vec<Drawn> = diagram.panels.iter().map(|panel| Drawn::new(panel, diagram)).collect();
    let widest = drawn.iter().map(|d| d.width).fold(0.0, f64::max);
    // As square as the wanted width permits: two by two rather than three and one.
    let fitting = ((WIDTH_WANTED - MARGIN) / (widest + MARGIN)).floor().max(1.0) as usize;
    let rows = drawn.len().div_ceil(fitting).max(1);
    let across = drawn.len().div_ceil(rows).max(1);

    let title = one_line(&diagram.title, 120);
    let hidden: usize = drawn.iter().map(|d| d.hidden).sum();
    let notes = notes(diagram.share_min, hidden, &drawn);
    let mut body = String::new();
    let mut top = MARGIN;
    if !title.is_empty() {
        text(&mut body, [MARGIN, top + TITLE_PX], TITLE_PX, "fill=\"#1b2733\" font-weight=\"bold\"", &title);
        top += TITLE_PX + MARGIN;
    }
    for row in drawn.chunks(across) {
        let height = row.iter().map(|d| d.height).fold(0.0, f64::max);
        for (column, panel) in row.iter().enumerate() {
            panel.write(&mut body, MARGIN + column as f64 * (widest + MARGIN), top, widest, height);
        }
        top += height + MARGIN;
    }
    if !notes.is_empty() {
        text(&mut body, [MARGIN, top + LABEL_PX - 6.0], LABEL_PX, "fill=\"#5b6770\"", &notes);
        top += LABEL_PX + 8.0;
    }
    let texts = text_width(&title, TITLE_PX).max(text_width(&notes, LABEL_PX)) + 2.0 * MARGIN;
    let width = (across as f64 * (widest + MARGIN) + MARGIN).max(texts).ceil();
    let height = top.ceil();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" role=\"img\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n",
        escaped(&title)
    )
}

fn notes(share_min: f64, hidden: usize, drawn: &[Drawn]) -> String {
    let mut notes = Vec::new();
    if drawn.iter().any(|d| !d.lines.is_empty()) {
        notes.push("heavier line: more tasks".to_owned());
    }
    if drawn.iter().any(|d| d.layout.used.contains(&false)) {
        notes.push("grey: not used".to_owned());
    }
    if hidden > 0 {
        let arrows = if hidden == 1 { "handoff" } else { "handoffs" };
        notes.push(format!(
            "{hidden} {arrows} below {}% of tasks not shown",
            (share_min * 1e3).round() / 10.0
        ));
    }
    notes.join("  ·  ")
}

/// A panel with everything decided but its place.
struct Drawn<'a> {
    caption: String,
    nodes: Vec<(String, &'a Node)>,
    lines: Vec<Line>,
    labels: Vec<String>,
    layout: Layout,
    hidden: usize,
    width: f64,
    height: f64,
}

impl<'a> Drawn<'a> {
    fn new(panel: &'a Panel, diagram: &Diagram) -> Drawn<'a> {
        let nodes: Vec<(String, &Node)> = panel.nodes.iter().map(|n| (one_line(&n.name, 28), n)).collect();
        let real = |a: &&Arrow| a.from.max(a.to) < nodes.len() && a.share.is_finite() && a.share > 0.0;
        let (shown, hidden): (Vec<&Arrow>, Vec<&Arrow>) =
            panel.arrows.iter().filter(real).partition(|a| a.share >= diagram.share_min);
        let labels: Vec<String> = shown.iter().map(|a| one_line(&a.label, 16)).collect();
        let line = |(arrow, label): (&&Arrow, &String)| Line {
            from: arrow.from,
            to: arrow.to,
            // Bounded, so that sums of shares stay finite.
            share: arrow.share.min(1e3),
            width: 0.8 + 3.4 * arrow.share.min(1.0),
            label: (arrow.share >= diagram.label_share_min && !label.is_empty())
                .then(|| [text_width(label, LABEL_PX) + 2.0, LABEL_PX + 2.0]),
        };
        let lines: Vec<Line> = shown.iter().zip(&labels).map(line).collect();
        let sizes: Vec<(NodeKind, f64)> = nodes
            .iter()
            .map(|(name, node)| (node.kind, (text_width(name, NAME_PX) + 24.0).max(56.0)))
            .collect();
        let layout = layout::layout(&sizes, &lines);
        let caption = one_line(&panel.caption, 100);
        let width = layout.size[0].max(text_width(&caption, CAPTION_PX)) + 2.0 * PADDING;
        let height = layout.size[1] + CAPTION_HEIGHT + 2.0 * PADDING;
        Drawn { caption, nodes, lines, labels, layout, hidden: hidden.len(), width, height }
    }

    fn write(&self, out: &mut String, x: f64, y: f64, width: f64, height: f64) {
        let frame = Rect { x: x + width / 2.0, y: y + height / 2.0, width, height };
        rect(out, &frame, 6.0, "fill=\"#fbfcfd\" stroke=\"#d5dce2\"");
        text(
            out,
            [x + PADDING, y + 24.0],
            CAPTION_PX,
            "fill=\"#33414d\" font-weight=\"bold\"",
            &self.caption,
        );
        let (left, top) = (x + PADDING, y + CAPTION_HEIGHT + PADDING);
        let _ = writeln!(out, "<g transform=\"translate({left:.1} {top:.1})\">");
        // The heaviest last, on top.
        let mut order: Vec<usize> = (0..self.lines.len()).collect();
        order.sort_by(|&a, &b| self.lines[a].share.total_cmp(&self.lines[b].share));
        for &line in &order {
            self.write_arrow(out, line);
        }
        for ((name, node), (place, &used)) in
            self.nodes.iter().zip(self.layout.boxes.iter().zip(&self.layout.used))
        {
            let (look, ink) = match (used, node.kind) {
                (false, _) => {
                    ("fill=\"#f4f5f6\" stroke=\"#c9ced3\" stroke-dasharray=\"4 3\"", "fill=\"#a3abb2\"")
                }
                (true, NodeKind::Start) => {
                    ("fill=\"#dbe9f8\" stroke=\"#2f6db3\" stroke-width=\"1.5\"", "fill=\"#173f6d\"")
                }
                (true, NodeKind::Agent) => {
                    ("fill=\"#ffffff\" stroke=\"#44515d\" stroke-width=\"1.5\"", "fill=\"#1b2733\"")
                }
                (true, NodeKind::Finish) => {
                    ("fill=\"#dcf1e2\" stroke=\"#2b8a4b\" stroke-width=\"1.5\"", "fill=\"#155c2e\"")
                }
            };
            let radius = if node.kind == NodeKind::Agent { 6.0 } else { 14.0 };
            let _ = writeln!(out, "<g class=\"node\"><title>{}</title>", escaped(&one_line(&node.name, 400)));
            rect(out, place, radius, look);
            let look = format!("text-anchor=\"middle\" {ink}");
            text(out, [place.x, place.y + 0.35 * NAME_PX], NAME_PX, &look, name);
            out.push_str("</g>\n");
        }
        for &line in &order {
            let Some(place) = &self.layout.labels[line] else { continue };
            let look = "text-anchor=\"middle\" fill=\"#173f6d\" stroke=\"#fbfcfd\" stroke-width=\"3\" \
                        stroke-linejoin=\"round\" paint-order=\"stroke\"";
            text(out, [place.x, place.y + 0.36 * LABEL_PX], LABEL_PX, look, &self.labels[line]);
        }
        out.push_str("</g>\n");
    }

    fn write_arrow(&self, out: &mut String, index: usize) {
        let line = &self.lines[index];
        let (from, to) = (self.nodes[line.from].1, self.nodes[line.to].1);
        let mut route: Vec<Cubic> = self.layout.routes[index].clone();
        let Some(last) = route.last_mut() else { return };
        // The head ends at the box, and the line ends inside the head.
        let (long, wide) = (6.0 + 1.4 * line.width, 2.2 + 0.9 * line.width);
        let [_, _, before, tip] = *last;
        let way = [tip[0] - before[0], tip[1] - before[1]];
        let scale = 1.0 / length(way).max(1e-9);
        let [ux, uy] = [way[0] * scale, way[1] * scale];
        let neck = [tip[0] - ux * long, tip[1] - uy * long];
        last[3] = [tip[0] - ux * long * 0.8, tip[1] - uy * long * 0.8];
        last[2] = [before[0] - ux * long * 0.5, before[1] - uy * long * 0.5];

        let opacity = 0.22 + 0.7 * line.share.min(1.0).sqrt();
        let _ = write!(out, "<g class=\"arrow\" opacity=\"{opacity:.2}\"><title>");
        let label = &self.labels[index];
        let _ = write!(
            out,
            "{} → {} {}",
            escaped(&one_line(&from.name, 400)),
            escaped(&one_line(&to.name, 400)),
            escaped(label)
        );
        let [x, y] = route[0][0];
        let _ = write!(
            out,
            "</title><path fill=\"none\" stroke=\"#1f5f9e\" stroke-width=\"{:.1}\" d=\"M{x:.1} {y:.1}",
            line.width
        );
        for [_, a, b, c] in &route {
            let _ = write!(out, "C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", a[0], a[1], b[0], b[1], c[0], c[1]);
        }
        let [ax, ay, bx, by] =
            [neck[0] - uy * wide, neck[1] + ux * wide, neck[0] + uy * wide, neck[1] - ux * wide];
        let _ = writeln!(
            out,
            "\"/><path fill=\"#1f5f9e\" d=\"M{:.1} {:.1}L{ax:.1} {ay:.1}L{bx:.1} {by:.1}Z\"/></g>",
            tip[0], tip[1]
        );
    }
}

fn rect(out: &mut String, rect: &Rect, radius: f64, look: &str) {
    let Rect { x, y, width, height } = rect;
    let (x, y) = (x - width / 2.0, y - height / 2.0);
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{radius:.1}\" {look}/>"
    );
}

pub(super) fn text(out: &mut String, [x, y]: [f64; 2], size_px: f64, look: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size_px}\" {look} xml:space=\"preserve\">{text}</text>"
    );
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team(share_min: f64) -> Diagram {
        let node = |name: &str, kind| Node { name: name.into(), kind };
        let arrow = |from, to, share: f64| Arrow { from, to, share, label: format!("{:.0}%", share * 100.0) };
        let panel = Panel {
            caption: "a < b & \"c\"".into(),
            nodes: vec![
                node("<start>", NodeKind::Start),
                node("R&D\u{1}", NodeKind::Agent),
                node("checker", NodeKind::Agent),
                node("finish", NodeKind::Finish),
            ],
            arrows: vec![
                arrow(0, 1, 1.0),
                arrow(1, 1, 0.02),
                arrow(1, 3, 1e300),
                arrow(1, 2, 0.0),
                arrow(2, 1, f64::NAN),
                arrow(1, 9, 1.0),
            ],
        };
        Diagram { title: "</title>".into(), panels: vec![panel; 7], share_min, ..Diagram::default() }
    }

    #[test]
    fn every_arrow_with_a_share_is_drawn_and_the_picture_says_which_are_not() {
        let all = svg(&team(0.0));
        assert_eq!(all.matches("class=\"arrow\"").count(), 3 * 7);
        assert_eq!(all.matches("class=\"node\"").count(), 4 * 7);
        let heavy = svg(&team(0.05));
        assert_eq!(heavy.matches("class=\"arrow\"").count(), 2 * 7);
        assert!(heavy.contains("7 handoffs below 5% of tasks not shown"));
    }

    #[test]
    fn names_are_escaped() {
        let picture = svg(&team(0.0));
        for text in ["&lt;/title&gt;", "&lt;start&gt;", "R&amp;D\u{fffd}", "a &lt; b &amp; &quot;c&quot;"] {
            assert!(picture.contains(text), "{text}");
        }
        assert!(!picture.contains("<start>") && !picture.contains('\u{1}'));
    }

    #[test]
    fn the_same_data_gives_the_same_bytes_all_of_them_numbers() {
        let picture = svg(&team(0.0));
        assert_eq!(picture, svg(&team(0.0)));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_a_picture_too() {
        for panels in [vec![], vec![Panel::default()]] {
            let picture = svg(&Diagram { panels, share_min: f64::NAN, ..Diagram::default() });
            assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n") && !picture.contains("inf"));
        }
    }
}
