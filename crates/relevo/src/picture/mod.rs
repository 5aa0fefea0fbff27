//! Pictures: what was learned and how it was learned go in as data and come out as SVG text,
//! which the caller writes to a file or into a page. The same data gives the same bytes.

pub mod curve;
pub mod curves;
pub mod diagram;
mod layout;
pub mod map;

/// The width of a text in pixels, estimated: which font the viewer has is not known here, so
/// the estimate leans to the wide side.
fn text_width(text: &str, size_px: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.34,
        ' ' | 'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.96,
        'A'..='Z' => 0.72,
        c if c as u32 >= 0x1100 => 1.0,
        _ => 0.63,
    };
    text.chars().map(em).sum::<f64>() * size_px
}

/// The text on one line: characters that XML forbids are replaced, and a long text is cut.
fn one_line(text: &str, chars_max: usize) -> String {
    let legal = |c: char| match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => '\u{fffd}',
        c => c,
    };
    if text.chars().count() <= chars_max {
        return text.chars().map(legal).collect();
    }
    text.chars().take(chars_max.saturating_sub(1)).map(legal).chain(['…']).collect()
}
