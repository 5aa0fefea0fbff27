//! The command `relevo`.

mod cmd;
mod info;
mod telemetry;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Teams of agents learn, from outcomes, who should act next.
///
/// Each agent sees only what it is handed and its own private state; for every handoff exactly one number comes back.
/// Begin with `relevo learn examples/maths/team.toml`.
#[derive(Parser)]
#[command(name = "relevo", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Learn(cmd::learn::LearnArguments),
    Evaluate(cmd::evaluate::EvaluateArguments),
    Run(cmd::run::RunArguments),
    Doctor(cmd::doctor::DoctorArguments),
    Explain(cmd::explain::ExplainArguments),
    Report(cmd::report::ReportArguments),
    #[command(subcommand)]
    Approvals(cmd::approvals::ApprovalsCommand),
    Stop(cmd::stop::StopArguments),
    Serve(cmd::node::serve::ServeArguments),
    Join(cmd::node::join::JoinArguments),
    Peers(cmd::node::peers::PeersArguments),
    Handoff(cmd::node::handoff::HandoffArguments),
    Outcome(cmd::node::handoff::OutcomeArguments),
    Sim(cmd::node::sim::SimArguments),
    #[command(subcommand)]
    Ledger(cmd::node::ledger::LedgerCommand),
    #[command(subcommand)]
    Policy(cmd::policy::PolicyCommand),
    #[command(subcommand)]
    Replay(cmd::replay::ReplayCommand),
    #[command(subcommand)]
    Judge(cmd::judge::JudgeCommand),
    #[command(subcommand)]
    Lab(cmd::lab::LabCommand),
    #[command(subcommand)]
    Lm(cmd::lm::LmCommand),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Learn(arguments) => cmd::learn::learn(&arguments),
        Command::Evaluate(arguments) => cmd::evaluate::evaluate(&arguments),
        Command::Run(arguments) => cmd::run::run(&arguments),
        Command::Doctor(arguments) => cmd::doctor::doctor(&arguments),
        Command::Explain(arguments) => cmd::explain::explain(&arguments),
        Command::Report(arguments) => cmd::report::report(&arguments),
        Command::Approvals(command) => cmd::approvals::approvals(&command),
        Command::Stop(arguments) => cmd::stop::stop(&arguments),
        Command::Serve(arguments) => cmd::node::serve::serve(&arguments),
        Command::Join(arguments) => cmd::node::join::join(&arguments),
        Command::Peers(arguments) => cmd::node::peers::peers(&arguments),
        Command::Handoff(arguments) => cmd::node::handoff::handoff(&arguments),
        Command::Outcome(arguments) => cmd::node::handoff::outcome(&arguments),
        Command::Sim(arguments) => cmd::node::sim::sim(&arguments),
        Command::Ledger(command) => cmd::node::ledger::ledger(&command),
        Command::Policy(command) => cmd::policy::policy(&command),
        Command::Replay(command) => cmd::replay::replay(&command),
        Command::Judge(command) => cmd::judge::judge(&command),
        Command::Lab(command) => cmd::lab::lab(&command),
        Command::Lm(command) => cmd::lm::lm(&command),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            cmd::say!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
