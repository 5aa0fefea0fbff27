//! What an experiment leaves: `results.json` with everything, `report.md` for one experiment, and a page of HTML for
//! several. Made of [`Findings`]; written by the command line.

use core::fmt::Write;
use std::io;

use serde::{Deserialize, Serialize};

use crate::{
    experiment::{Experiment, Findings, Table, Verdict},
    plot,
};

/// Name and version of the form of `results.json`.
pub const SCHEMA: &str = "relevo.lab-results/v1";

/// How results were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The command that makes them again.
    pub command: String,
    /// First seed, and the first one beyond the last.
    pub seeds: [u64; 2],
    /// Whether it was the smaller form.
    pub quick: bool,
    /// Version of relevo.
    pub version: String,
    /// Commit of the checkout.
    pub commit: String,
    /// Threads.
    pub jobs: usize,
    /// Wall time.
    pub seconds: f64,
    /// Stopped early: some runs are missing.
    pub partial: bool,
}

/// Everything an experiment leaves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// Name of the experiment.
    pub experiment: String,
    /// What it asks, in one line.
    pub summary: String,
    /// How they were made.
    pub origin: Origin,
    /// Whether the figures are where they were expected; empty where nothing was expected of these seeds.
    pub verdicts: Vec<Verdict>,
    /// What came out.
    pub findings: Findings,
}

impl Results {
    /// The results of `experiment`. What is not a finite number is left out of figures and plots.
    pub fn new(
        experiment: &Experiment,
        mut findings: Findings,
        verdicts: Vec<Verdict>,
        origin: Origin,
    ) -> Self {
        findings.figures.retain(|f| f.value.is_finite());
        for plot in &mut findings.plots {
            plot.levels.retain(|(_, y)| y.is_finite());
            plot.series.iter_mut().for_each(|s| s.points.retain(|p| p.iter().all(|x| x.is_finite())));
        }
        Results {
            schema: SCHEMA.to_owned(),
            experiment: experiment.name.to_owned(),
            summary: experiment.summary.to_owned(),
            origin,
            verdicts,
            findings,
        }
    }

    /// As they stand in `results.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and text") + "\n"
    }

    /// From the text of a `results.json`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, and where.
    pub fn from_json(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let head: Head = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if head.schema != SCHEMA {
            return Err(format!("it is of the form {:?}, this version reads {SCHEMA:?}", head.schema));
        }
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    /// Whether every figure is where it was expected.
    pub fn holds(&self) -> bool {
        self.verdicts.iter().all(|v| v.holds)
    }

    /// `report.md`; its plots are expected beside it, as `<name>.svg`.
    pub fn markdown(&self) -> String {
        let Results { experiment, summary, findings, .. } = self;
        let mut report = format!("# {experiment}: {summary}\n\n{}\n", findings.claim.trim());
        for plot in &findings.plots {
            report += &format!("\n![{}]({}.svg)\n", plot.title, plot.name);
        }
        for t in self.tables() {
            report += &format!("\n## {}\n\n", t.caption);
            for (i, row) in t.rows.iter().enumerate() {
                let cells: Vec<String> = row.iter().map(|c| c.replace('|', "\\|")).collect();
                report += &format!("| {} |\n", cells.join(" | "));
                if i == 0 {
                    report += &format!("|{}\n", "---|".repeat(row.len()));
                }
            }
        }
        report + &format!("\n## How it was made\n\n{}\n\n{}\n", self.made(), findings.notes)
    }

    /// The tables, with that of what was expected.
    fn tables(&self) -> Vec<Table> {
        let mut tables = self.findings.tables.clone();
        if !self.verdicts.is_empty() {
            let head = ["figure", "value", "expected", "holds"].map(str::to_owned).to_vec();
            let row = |v: &Verdict| {
                let value = v.value.map_or("absent".to_owned(), |x| x.to_string());
                let [low, high] = v.interval;
                let holds = if v.holds { "yes" } else { "no" };
                vec![v.name.clone(), value, format!("{low} to {high}"), holds.to_owned()]
            };
            let rows = core::iter::once(head).chain(self.verdicts.iter().map(row)).collect();
            tables.push(Table { caption: "What was expected of the quick form".to_owned(), rows });
        }
        tables
    }

    fn made(&self) -> String {
        let Origin { command, version, commit, jobs, seconds, partial, .. } = &self.origin;
        let partial = if *partial { " It was stopped early: **the results are partial.**" } else { "" };
        format!("`{command}`, relevo {version}, commit {commit}, {seconds:.1} s on {jobs} threads.{partial}")
    }

    /// Its part of the page.
    fn section(&self) -> io::Result<String> {
        let Results { experiment, summary, findings, .. } = self;
        let mut html = format!("<section id=\"{0}\">\n<h2>{0}: {1}</h2>\n", text(experiment), text(summary));
        html += &from_markdown(findings.claim.trim());
        for plot in &findings.plots {
            html += &format!("<figure>{}</figure>\n", plot::svg(plot)?);
        }
        for t in self.tables() {
            html += &format!("<h3>{}</h3>\n<div class=\"wide\"><table>\n", text(&t.caption));
            for (i, row) in t.rows.iter().enumerate() {
                let cell = if i == 0 { "th" } else { "td" };
                let cells: String = row.iter().map(|c| format!("<{cell}>{}</{cell}>", text(c))).collect();
                html += &format!("<tr>{cells}</tr>\n");
            }
            html += "</table></div>\n";
        }
        Ok(html
            + "<h3>How it was made</h3>\n"
            + &from_markdown(&self.made())
            + &from_markdown(&findings.notes)
            + "</section>\n")
    }
}

/// Several results as one page of HTML that needs nothing besides itself.
///
/// # Errors
///
/// When a plot cannot be drawn, which is a bug.
pub fn page(results: &[Results]) -> io::Result<String> {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>relevo lab</title>\n<style>{STYLE}</style>\n\
         <h1>relevo lab</h1>\n<nav><table>\n<tr><th>experiment</th><th>what it asks</th><th>seeds</th><th>form</th>\
         <th>as expected</th></tr>\n"
    );
    for r in results {
        let [first, beyond] = r.origin.seeds;
        let form = match (r.origin.quick, r.origin.partial) {
            (_, true) => "partial",
            (true, false) => "quick",
            (false, false) => "full",
        };
        let held = r.verdicts.iter().filter(|v| v.holds).count();
        let expected = match r.verdicts.len() {
            0 => "–".to_owned(),
            all if held == all => format!("✓ all {all}"),
            all => format!("✗ {held} of {all}"),
        };
        let (name, asks) = (text(&r.experiment), text(&r.summary));
        writeln!(
            html,
            "<tr><td><a href=\"#{name}\">{name}</a></td><td>{asks}</td><td>{first}..{beyond}</td><td>{form}</td>\
             <td>{expected}</td></tr>"
        )
        .expect("a text grows");
    }
    html += "</table></nav>\n";
    for r in results {
        html += &r.section()?;
    }
    Ok(html + "</html>\n")
}

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; color: #33414d; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } section { border-top: 2px solid #e4e8ec; margin-top: 3rem; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid #e4e8ec; vertical-align: top; }
code { background: #f2f4f6; padding: 0 .2em; }
";

fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// HTML of Markdown of results, which may come from a file of somebody else's: tags in it are text.
fn from_markdown(source: &str) -> String {
    use pulldown_cmark::{Event, Parser, html};
    let plain = Parser::new(source).map(|event| match event {
        Event::Html(tag) | Event::InlineHtml(tag) => Event::Text(tag),
        other => other,
    });
    let mut out = String::new();
    html::push_html(&mut out, plain);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{ALL, Figure, Plot, Series};

    fn results() -> Results {
        let points = vec![[1.0, 0.0, 0.5, 1.0], [2.0, f64::NAN, 0.0, 0.0]];
        let findings = Findings {
            claim: "**Claim.** a < b & <script>alert(1)</script>".to_owned(),
            tables: vec![Table {
                caption: "T".to_owned(),
                rows: vec![vec!["a|b".to_owned()], vec!["<i>".to_owned()]],
            }],
            plots: vec![Plot {
                name: "p".to_owned(),
                series: vec![Series { name: "<s>".to_owned(), points }],
                ..Plot::default()
            }],
            figures: vec![
                Figure { name: "whole".to_owned(), value: 1.0 },
                Figure { name: "not a number".to_owned(), value: f64::NAN },
            ],
            ..Findings::default()
        };
        let origin = Origin {
            command: "relevo lab run".to_owned(),
            seeds: [0, 1],
            quick: true,
            version: "0".to_owned(),
            commit: "c".to_owned(),
            jobs: 1,
            seconds: 0.1,
            partial: false,
        };
        let verdicts = ALL[0].verdicts(&findings);
        Results::new(&ALL[0], findings, verdicts, origin)
    }

    #[test]
    fn results_come_back_from_their_text() {
        let json = results().to_json();
        assert_eq!(Results::from_json(&json).expect("it is whole").to_json(), json);
        for damaged in [&json[..json.len() / 2], "", "{}", "[1]", &json.replace("/v1", "/v9")] {
            assert!(Results::from_json(damaged).is_err(), "{damaged:.40}");
        }
    }

    #[test]
    fn nothing_in_results_becomes_a_tag_of_the_page() {
        let html = page(&[results()]).expect("it is drawn");
        assert!(!html.contains("<script") && !html.contains("<i>") && !html.contains("<s>"), "{html}");
        assert!(html.contains("✗ 0 of"), "the figures expected of the experiment are absent");
        assert!(results().markdown().contains("| a\\|b |\n|---|\n"));
    }
}
