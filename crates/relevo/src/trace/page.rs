//! A session, or one task, as a page of HTML that needs nothing besides itself: no scripts, no fonts, no network.

use std::io;

use super::{
    figures::Window,
    session::SessionReport,
    tables::{NO_CONTENT, Section, percent},
    task::{Choice, Decision, Event, TaskReport},
};
use crate::{
    picture::curve::{self, Curve, Point},
    report::Estimate,
};

/// A page about a whole run.
///
/// # Errors
///
/// When a plot cannot be drawn, which is a bug.
pub fn session(session: &SessionReport) -> io::Result<String> {
    let mut body = format!("<h1>{}</h1>\n<p>{}.</p>\n", text(&session.team), text(&session.summary()));
    for notice in &session.notices {
        body += &format!("<p class=\"notice\">{}</p>\n", text(notice));
    }
    body += &over_time(session, "mean return", |w| w.task_return)?;
    body += &over_time(session, "tokens per task", |w| w.tokens)?;
    body += &over_time(session, "failed calls per task", |w| w.failures)?;
    session.sections().iter().for_each(|section| body += &table(section));
    Ok(page(&session.team, &body, NO_CONTENT))
}

/// A figure over the windows; nothing where it is 0 in all of them.
fn over_time(session: &SessionReport, what: &str, figure: fn(&Window) -> Estimate) -> io::Result<String> {
    let point = |window: &Window| {
        let Estimate { mean, half_width, .. } = figure(window);
        let half = half_width.unwrap_or(0.0);
        let x = window.first as f64 + window.tasks as f64 / 2.0;
        Point { x, mean, low: mean - half, high: mean + half }
    };
    let points: Vec<Point> = session.windows.iter().map(point).collect();
    if points.iter().all(|point| point.mean == 0.0) {
        return Ok(String::new());
    }
    let curve = Curve {
        title: what.to_owned(),
        x_label: "tasks, in the order in which they ended".to_owned(),
        y_label: what.to_owned(),
        points,
        levels: vec![],
    };
    Ok(format!("<figure>{}</figure>\n", curve::svg(&curve)?))
}

/// A page about one task.
pub fn task(trace: &TaskReport) -> String {
    let mut body = format!("<h1>Task {}</h1>\n<p>{}.</p>\n", trace.task.task, text(&trace.summary()));
    let timeline = trace.events();
    body += "<h2>What happened</h2>\n<div class=\"wide\"><table>\n";
    // The head comes first, and behind the events what was left out.
    let events = std::iter::once(None).chain(trace.timeline.iter().map(Some));
    for (row, event) in timeline.rows.iter().zip(events.chain(std::iter::repeat(None))) {
        match event {
            Some(Event::Decided(decision)) => {
                body += &row_of("td", &row[..2], &decided(decision));
            }
            Some(_) => body += &row_of("td", row, ""),
            None => body += &row_of("th", row, ""),
        }
    }
    body += "</table></div>\n";
    page(&format!("{}, task {}", trace.team, trace.task.task), &body, NO_CONTENT)
}

/// A decision as a cell: every alternative with a bar as long as it was probable.
fn decided(decision: &Decision) -> String {
    let Decision { situation, choices, chosen, greedy, masked, policy_version, .. } = decision;
    let greedy = if *greedy { "the best known" } else { "exploring" };
    let mut cell = format!("at <code>{}</code>, policy {policy_version}, {greedy}<table>\n", text(situation));
    for Choice { choice, probability, .. } in choices {
        let name = match choice == chosen {
            true => format!("<b>{}</b>", text(choice)),
            false => text(choice),
        };
        cell += &format!(
            "<tr><td>{name}</td><td>{}</td><td><span class=\"bar\" style=\"width:{:.1}rem\"></span></td></tr>\n",
            percent(*probability),
            8.0 * probability
        );
    }
    for kept in masked {
        let names = text(&kept.choices.join(", "));
        cell += &format!("<tr><td><s>{names}</s></td><td colspan=\"2\">{}</td></tr>\n", text(&kept.guard));
    }
    cell + "</table>"
}

pub(crate) fn table(section: &Section) -> String {
    let mut html = String::new();
    let caption = text(section.caption);
    html += &match section.long {
        true => format!("<details><summary>{caption} ({})</summary>\n", section.rows.len() - 1),
        false => format!("<h2>{caption}</h2>\n"),
    };
    html += "<div class=\"wide\"><table>\n";
    for (i, row) in section.rows.iter().enumerate() {
        html += &row_of(if i == 0 { "th" } else { "td" }, row, "");
    }
    html + "</table></div>\n" + if section.long { "</details>\n" } else { "" }
}

/// A row of texts, and behind them a cell of HTML if there is one.
fn row_of(cell: &str, texts: &[String], last: &str) -> String {
    let cells: String = texts.iter().map(|raw| format!("<{cell}>{}</{cell}>", text(raw))).collect();
    let last = if last.is_empty() { String::new() } else { format!("<{cell}>{last}</{cell}>") };
    format!("<tr>{cells}{last}</tr>\n")
}

/// A whole page; what it is told from comes last.
pub(crate) fn page(title: &str, body: &str, aside: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         {body}<p class=\"aside\">{aside} relevo {}.</p>\n</html>\n",
        text(title),
        env!("CARGO_PKG_VERSION")
    )
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #33414d; --rule: #e4e8ec; --mark: #1f5f9e; --ground: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d5dce3; --rule: #3a444d; --mark: #7db4e8; --ground: #14181c; }
  figure svg { filter: invert(.92) hue-rotate(180deg); }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.25; } figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { white-space: nowrap; } td table td { border: 0; padding: 0 .7rem 0 0; }
summary { font-size: 1.25rem; font-weight: bold; margin: 1.5rem 0 .5rem; cursor: pointer; }
.bar { display: inline-block; height: .7em; background: var(--mark); }
.notice { border-left: 4px solid var(--mark); padding-left: .7rem; } .aside { font-size: 14px; margin-top: 3rem; }
";

pub(crate) fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
