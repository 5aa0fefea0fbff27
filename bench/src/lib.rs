//! What the benchmarks share: where figures go and come from, the limits of the machine, and the little world in
//! which whole handoffs are measured.

pub mod cpu_time;
pub mod limits;
pub mod world;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use cpu_time::CpuTime;
use criterion::Criterion;

fn output() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/criterion"))
}

static START: OnceLock<SystemTime> = OnceLock::new();

/// Criterion, so set that all of `cargo bench` takes a few minutes; says first which machine this is.
pub fn criterion() -> Criterion<CpuTime> {
    START.get_or_init(|| {
        println!("machine: {}", machine());
        SystemTime::now()
    });
    Criterion::default()
        .with_measurement(CpuTime)
        .output_directory(&output())
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// The median time of one iteration of `group/id`, in ns; `None` if a filter left it out of this run.
pub fn median(group: &str, id: &str) -> Option<f64> {
    let path = output().join(group).join(id).join("new/estimates.json");
    if fs::metadata(&path).ok()?.modified().ok()? < *START.get()? {
        return None;
    }
    let estimates: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

/// The line after a group: what was measured, against what, and what limits it.
pub fn verdict(text: &str) {
    println!("  => {text}\n");
}

/// `yes` or `NO`, for goals.
pub fn met(met: bool) -> &'static str {
    if met { "goal met" } else { "GOAL MISSED" }
}

fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown processor", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let said = |command: &mut Command| {
        command
            .output()
            .ok()
            .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let commit = said(Command::new("git").args(["describe", "--always", "--dirty"]));
    let date = said(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{model}, {cores} cores, load {load}; commit {commit}, {date}")
}
