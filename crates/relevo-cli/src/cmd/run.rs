//! `relevo run`: route one real item by a learned policy.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use relevo::{
    evaluate::{Greedy, Turn, walk},
    report::table,
    reward::Usual,
    stage::Stage,
};
use relevo_core::{
    ids::OperationId,
    learner::{Learner, Regime},
    record::Table,
};

use super::{Fault, doctor, print};
use crate::{telemetry::OtlpOption, world};

/// Route one item by a learned policy, and print each handoff and why
#[derive(Args)]
pub(crate) struct RunArguments {
    /// The team file
    team: PathBuf,
    /// The policy, or the folder of the run that learned it
    #[arg(long, value_name = "POLICY")]
    policy: PathBuf,
    /// The item
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where to put what comes out
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show on standard error what models answer, as it grows
    #[arg(long)]
    show: bool,
    /// Begin without asking every model and tool server first whether it answers
    #[arg(long)]
    no_preflight: bool,
    #[command(flatten)]
    otlp: OtlpOption,
}

pub(crate) fn run(arguments: &RunArguments) -> Result<ExitCode, Fault> {
    let stage = world::stage(&arguments.team)?;
    let lookout = arguments.otlp.begin(&arguments.team)?;
    let origin = lookout.origin(stage.team().name.clone());
    let stage = lookout.observe(stage, origin)?;
    if arguments.show {
        stage.listen(Box::new(|piece| {
            let piece: String = piece.chars().filter(|c| !c.is_control() || *c == '\n').collect();
            let mut stderr = std::io::stderr().lock();
            // Nobody may listen any more.
            let _ = stderr.write_all(piece.as_bytes()).and_then(|()| stderr.flush());
        }));
    }
    let policy = world::policy(&arguments.policy)?;
    let participants = world::restored(&stage, &policy)?;
    let learners: Vec<&Learner> = participants.iter().map(|p| p.learner()).collect();
    let task = stage.tasks().open(&arguments.input)?;
    let mut greedy = Greedy { learners: learners.clone() };
    let (runtime, mut guard) = (world::runtime()?, stage.guard());
    if !arguments.no_preflight {
        runtime.block_on(doctor::preflight(&stage))?;
    }
    let interrupted = async {
        tokio::signal::ctrl_c().await.ok();
    };
    let walk = runtime.block_on(async {
        tokio::select! {
            walk = walk(&stage, &mut guard, task, 0, Usual::default(), &mut greedy) => walk.map_err(Fault::from),
            () = interrupted => Err("interrupted; the running program was ended".into()),
        }
    })?;
    let mut rows = vec![["", "agent", "saw", "handed to", "because"].map(str::to_owned).to_vec()];
    for (i, turn) in walk.turns.iter().enumerate() {
        let to = match turn.choice.as_str() {
            "" => "nobody: no choice was admissible",
            name => name,
        };
        rows.push(vec![
            (i + 1).to_string(),
            actor(&stage, turn),
            turn.situation.clone(),
            to.to_owned(),
            because(&stage, learners[turn.agent.0 as usize], turn),
        ]);
    }
    let mut text = table(&rows);
    for turn in &walk.turns {
        if let Some(failure) = &turn.failure {
            text += &format!("  {}: {failure}\n", actor(&stage, turn));
        }
    }
    let quality = match walk.quality {
        Some(q) if walk.concluded => format!("quality {q}"),
        Some(_) => "not concluded".to_owned(),
        None => "quality unknown: nothing to compare with".to_owned(),
    };
    text += &format!(
        "{}: {} after {} calls ({} failed), return {:.4}, {quality}\n",
        walk.task, walk.stop, walk.spent.calls, walk.spent.failures, walk.walk_return
    );
    print(&text)?;
    if let Some(output) = &arguments.output {
        std::fs::write(output, &walk.artifact.payload)
            .map_err(|e| format!("{}: it cannot be written: {e}", output.display()))?;
        say!("what came out is in {}", output.display());
    }
    Ok(if walk.concluded && walk.quality != Some(0.0) { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Who acted, and how, if there was a choice.
fn actor(stage: &Stage, turn: &Turn) -> String {
    let name = stage.participant_name(turn.agent);
    match stage.regime(turn.agent) {
        Regime::Adaptable { .. } if stage.coordination().is_none() => {
            format!("{name} ({})", stage.operation_name(turn.agent, turn.operation))
        }
        _ => name.to_owned(),
    }
}

/// The values that were compared, the best first.
fn because(stage: &Stage, learner: &Learner, turn: &Turn) -> String {
    let table = if stage.coordination().is_some() { Table::Operations } else { Table::Successors };
    let values = learner.values(table, &turn.observation);
    let graph = learner.graph(table).expect("a coordinator has operations, and every learner successors");
    let mut choices: Vec<_> = turn.observation.legal.iter().map(|a| (values[a.index()], a)).collect();
    if choices.len() == 1 {
        return "the only admissible choice".to_owned();
    }
    let Some(edges) = graph.edges(turn.observation.signature) else {
        return "never seen before".to_owned();
    };
    choices.sort_by(|a, b| b.0.total_cmp(&a.0));
    let shown = choices.iter().take(3).map(|(value, a)| {
        let name = match table {
            Table::Operations => stage.operation_name(turn.agent, OperationId(a.0)),
            Table::Successors => stage.team().choice_name(turn.agent, *a).to_owned(),
        };
        format!("{name} {value:.3} ({})", edges[a.index()].visits)
    });
    let rest = choices.len().saturating_sub(3);
    let rest = if rest > 0 { format!(", {rest} lower") } else { String::new() };
    format!("value (visits): {}{rest}", shown.collect::<Vec<_>>().join(", "))
}
