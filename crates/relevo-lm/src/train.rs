//! Training: one command, one seed, the same bytes; also when it was interrupted.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{
    backprop::{Backprop, Batch, Score},
    generate::Continue,
    lesson::{Attempt, LEVELS, Syllabus, attempts, lesson},
    measure::{Accuracies, glance, measure},
    model::{self, Model},
    network::Network,
    optimise::Optimiser,
    problem::Level,
    rng::Rng,
    shape::{Plan, Shape},
};

/// Parts of a batch that are worked on at the same time. Their number belongs to the result: sums are rounded.
const SHARDS: usize = 2;
/// Before this share of the steps, the model is too poor for its own solutions to be worth checking.
const APPRENTICE: f64 = 0.2;
/// The share of lessons that are about a solution, after that.
const CHECKED: f64 = 0.45;
/// The share of the steps over which the levels come in, from the easiest alone to all of them.
const GRADES: f64 = 0.15;
/// Steps over which the step size grows, and the share of all steps from which on it shrinks to nothing.
const WARM: f64 = 100.0;
const COOL: f64 = 0.3;

/// What determines a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Its size.
    pub shape: Shape,
    /// Steps down the gradient.
    pub steps: u64,
    /// Tokens in a step, at least.
    pub tokens: usize,
    /// Steps between checkpoints; at each, the model also solves problems anew whose solutions it then checks.
    pub every: u64,
    /// So many problems then.
    pub attempts: usize,
    /// Problems per level for a point of the curves.
    pub glance: u64,
    /// Problems per level for the report.
    pub measured: u64,
    /// The seed.
    pub seed: u64,
}

impl Recipe {
    /// That of the model in the box.
    pub const BUNDLED: Recipe = Recipe {
        shape: Shape::BUNDLED,
        steps: 6000,
        tokens: 2000,
        every: 250,
        attempts: 1024,
        glance: 100,
        measured: 2000,
        seed: 1,
    };
}

/// A point of the curves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps done.
    pub step: u64,
    /// Mean loss since the last point, in nats a token; verdicts count more.
    pub loss: f64,
    /// Of each level, the share of right letters at once, and after steps.
    pub accuracies: [[f64; 2]; 3],
}

/// How far it is.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// Steps done, of all.
    pub step: u64,
    /// Mean loss of the last step.
    pub loss: f64,
    /// What was measured so far.
    pub points: &'a [Point],
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What the model is called.
    pub name: String,
    /// What determined it.
    pub recipe: Recipe,
    /// How many numbers it has learned.
    pub parameters: usize,
    /// BLAKE3 of the weights.
    pub hash: String,
    /// How long it took, without what was measured at the end; since the last interruption.
    pub seconds: f64,
    /// The curves.
    pub points: Vec<Point>,
    /// What it does at the end, on problems that it has never seen.
    pub levels: Vec<Accuracies>,
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Files.
    #[error("{path}: it cannot be read or written: {error}; choose another --out")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A checkpoint of something else.
    #[error("{0}: the checkpoint is of another recipe (--steps, --seed) or damaged; choose another --out")]
    Checkpoint(String),
    /// A training that would be overwritten.
    #[error("{0}: a training is there already: go on with it by --resume, or choose another --out")]
    Occupied(String),
    /// No training that could go on.
    #[error("{0}: there is no training to go on with: leave out --resume, or choose another --out")]
    Nothing(String),
    /// A recipe that makes nothing.
    #[error("{0}")]
    Recipe(String),
    /// It was told to end; the checkpoint is kept.
    #[error("stopped; go on with --resume")]
    Stopped,
}

/// The weights in the folder of a training.
pub const WEIGHTS_FILE: &str = "relevo-lm-1.safetensors";
const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
const REPORT_FILE: &str = "report.json";
const NAME: &str = "relevo-lm-1";

/// What a training has come to.
struct State {
    step: u64,
    numbers: Vec<f32>,
    optimiser: Optimiser,
    points: Vec<Point>,
}

/// Train a model; its weights and `report.json` are in the folder afterwards. Another training there is not overwritten.
///
/// With `resume` it goes on where an interrupted training of the same recipe made its last checkpoint, and comes to
/// the same weights, to the bit, as one that was not interrupted.
///
/// # Errors
///
/// When files cannot be read or written, or `heard` says no.
pub fn train(
    recipe: &Recipe,
    out: &Path,
    resume: bool,
    heard: &mut dyn FnMut(&Progress<'_>) -> Continue,
) -> Result<Report, TrainError> {
    recipe.shape.check().map_err(TrainError::Recipe)?;
    if recipe.steps == 0 || recipe.every == 0 || recipe.tokens == 0 {
        return Err(TrainError::Recipe("a training has steps, and tokens in each".into()));
    }
    let plan = recipe.shape.plan();
    let begun = Instant::now();
    let (folder, checkpoint) = (out.display().to_string(), out.join(CHECKPOINT_FILE));
    let mut state = match (resume, checkpoint.exists()) {
        (true, true) => load(&checkpoint, recipe, &plan)?,
        (true, false) => return Err(TrainError::Nothing(folder)),
        (false, true) => return Err(TrainError::Occupied(folder)),
        (false, false) => {
            fs::create_dir_all(out).map_err(|error| TrainError::File { path: folder, error })?;
            State::new(recipe, &plan)
        }
    };
    let mut workers: Vec<Backprop> = (0..SHARDS).map(|_| Backprop::new(plan.clone())).collect();
    let mut network = Network::new(plan.clone(), std::mem::take(&mut state.numbers));
    if state.step == 0 {
        keep(&checkpoint, &save(&state, &network, recipe))?;
    }
    let mut pool = vec![];
    let mut since = Score::default();
    while state.step < recipe.steps {
        let done = state.step as f64 / recipe.steps as f64;
        if state.step.is_multiple_of(recipe.every) && done >= APPRENTICE {
            pool = attempts(&network, recipe.seed, state.step, recipe.attempts);
        }
        let grown = (done / GRADES).min(1.0);
        let levels = LEVELS.map(|weight| weight * grown);
        let levels = [levels[0] + 1.0 - grown, levels[1], levels[2]];
        let checks = if done < APPRENTICE { 0.0 } else { CHECKED };
        let syllabus = Syllabus { levels, checks };
        let (mut gradient, score) = descend(recipe, &network, &mut workers, state.step, &syllabus, &pool);
        since.loss += score.loss;
        since.weight += score.weight;
        let rate = ((state.step + 1) as f64 / WARM).min(1.0) * ((1.0 - done) / (1.0 - COOL)).min(1.0);
        state.optimiser.step(&plan, &mut network.numbers, &mut gradient, state.step, rate as f32);
        state.step += 1;
        if state.step.is_multiple_of(recipe.every) || state.step == recipe.steps {
            let weights = model::write(&network, NAME);
            let model = Model::read(&weights).expect("it was just written");
            let accuracies = Level::ALL.map(|level| glance(&model, level, recipe.glance));
            let loss = since.loss / since.weight;
            state.points.push(Point { step: state.step, loss, accuracies });
            since = Score::default();
            keep(&checkpoint, &save(&state, &network, recipe))?;
        }
        let loss = score.loss / score.weight;
        let progress = Progress { step: state.step, loss, points: &state.points };
        if heard(&progress) == Continue::No && state.step < recipe.steps {
            return Err(TrainError::Stopped);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let weights = model::write(&network, NAME);
    keep(&out.join(WEIGHTS_FILE), &weights)?;
    let model = Model::read(&weights).expect("it was just written");
    let report = Report {
        name: NAME.to_owned(),
        recipe: recipe.clone(),
        parameters: plan.len,
        hash: model.hash().to_owned(),
        seconds,
        points: state.points,
        levels: measure_all(&model, recipe.measured),
    };
    keep(&out.join(REPORT_FILE), &serde_json::to_vec_pretty(&report).expect("numbers and names"))?;
    Ok(report)
}

/// Every level, each on a thread of its own.
fn measure_all(model: &Model, problems: u64) -> Vec<Accuracies> {
    std::thread::scope(|scope| {
        let threads = Level::ALL.map(|level| scope.spawn(move || measure(model, level, problems, 0)));
        threads.into_iter().map(|t| t.join().expect("measuring does not fail")).collect()
    })
}

/// The gradient of one step, its parts on threads of their own and added in order.
fn descend(
    recipe: &Recipe,
    network: &Network,
    workers: &mut [Backprop],
    step: u64,
    syllabus: &Syllabus,
    pool: &[Attempt],
) -> (Vec<f32>, Score) {
    let parts = std::thread::scope(|scope| {
        let work = |(shard, worker): (usize, &mut Backprop)| {
            let mut rng = Rng::stream("lessons", &[recipe.seed, step, shard as u64]);
            let mut batch = Batch::default();
            while batch.tokens.len() < recipe.tokens.div_ceil(SHARDS) {
                lesson(recipe.seed, syllabus, pool, &mut rng, &mut batch);
            }
            let mut gradient = vec![0.0; network.plan.len];
            let scale = 1.0 / (batch.weight() * SHARDS as f32);
            let score = worker.run(&network.numbers, &batch, scale, &mut gradient);
            (gradient, score)
        };
        let threads: Vec<_> = workers.iter_mut().enumerate().map(|w| scope.spawn(move || work(w))).collect();
        threads.into_iter().map(|t| t.join().expect("arithmetic does not fail")).collect::<Vec<_>>()
    });
    let mut parts = parts.into_iter();
    let (mut gradient, mut score) = parts.next().expect("there are shards");
    for (part, more) in parts {
        gradient.iter_mut().zip(part).for_each(|(sum, g)| *sum += g);
        score.loss += more.loss;
        score.weight += more.weight;
    }
    (gradient, score)
}

impl State {
    fn new(recipe: &Recipe, plan: &Plan) -> Self {
        State { step: 0, numbers: plan.draw(recipe.seed), optimiser: Optimiser::new(plan), points: vec![] }
    }
}

/// What a checkpoint says besides its numbers.
#[derive(Serialize, Deserialize)]
struct Note {
    recipe: Recipe,
    step: u64,
    points: Vec<Point>,
}

const NOTE: &str = "relevo-lm-training";

fn save(state: &State, network: &Network, recipe: &Recipe) -> Vec<u8> {
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let Optimiser { first, second } = &state.optimiser;
    let all = [("numbers", &network.numbers), ("first", first), ("second", second)];
    let all = all.map(|(name, numbers)| (name, numbers.len(), bytes(numbers)));
    let views = all.iter().map(|(name, len, bytes)| {
        (*name, TensorView::new(Dtype::F32, vec![*len], bytes).expect("four bytes for each number"))
    });
    let note = Note { recipe: recipe.clone(), step: state.step, points: state.points.clone() };
    let note = serde_json::to_string(&note).expect("numbers");
    let metadata = HashMap::from([(NOTE.to_owned(), note)]);
    safetensors::serialize(views, Some(metadata)).expect("three arrays of known sizes")
}

fn load(path: &Path, recipe: &Recipe, plan: &Plan) -> Result<State, TrainError> {
    let other = || TrainError::Checkpoint(path.display().to_string());
    let bytes =
        fs::read(path).map_err(|error| TrainError::File { path: path.display().to_string(), error })?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|_| other())?;
    let note = metadata.metadata().as_ref().and_then(|m| m.get(NOTE)).ok_or_else(other)?;
    let Note { recipe: made_by, step, points } = serde_json::from_str(note).map_err(|_| other())?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|_| other())?;
    let numbers = |name: &str| {
        let tensor = tensors.tensor(name).ok().filter(|t| t.dtype() == Dtype::F32 && t.shape() == [plan.len]);
        let bytes = tensor.ok_or_else(other)?.data().chunks_exact(4);
        Ok(bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>())
    };
    if made_by != *recipe || step > recipe.steps {
        return Err(other());
    }
    let optimiser = Optimiser { first: numbers("first")?, second: numbers("second")? };
    Ok(State { step, numbers: numbers("numbers")?, optimiser, points })
}

/// Write a file whole or not at all.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut beside = PathBuf::from(path);
    beside.as_mut_os_string().push(".tmp");
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&beside)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| TrainError::File { path: path.display().to_string(), error })
}
