//! A trained model: its weights, its prompts, and what it says.

use std::{io, path::Path, sync::LazyLock};

use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{
    chat::{Prompt, PromptError, Role, Speech},
    generate::{Batch, Continue, Finish, Start},
    network::Network,
    shape::Shape,
};

/// A language model for arithmetic; any number of threads may use one at a time.
pub struct Model {
    network: Network,
    name: String,
    hash: String,
}

/// Weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file.
    #[error("{path}: the weights cannot be read: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// What is in it.
    #[error("these are no weights of a model of this kind: {0}; `relevo lm train` makes them")]
    Form(String),
}

/// Something to be said.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the model reads.
    pub prompt: Prompt,
    /// How random it is; 0 says the likeliest.
    pub temperature: f64,
    /// What decides among the random.
    pub seed: u64,
    /// The most tokens that are said.
    pub max_tokens: usize,
}

impl Request {
    /// The likeliest, as long as the model likes.
    pub fn new(prompt: Prompt) -> Self {
        Request { prompt, temperature: 0.0, seed: 0, max_tokens: usize::MAX }
    }

    pub(crate) fn start(&self) -> Start {
        // Nothing is longer than the context, which limits it anyway.
        let tokens_max = self.max_tokens.clamp(1, 1 << 16);
        let Request { temperature, seed, .. } = *self;
        Start { tokens: self.prompt.tokens.clone(), temperature, seed, tokens_max }
    }
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Tokens that were read.
    pub prompt_tokens: usize,
    /// Tokens that were said.
    pub completion_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// What is written beside the weights.
#[derive(Serialize, Deserialize)]
struct About {
    name: String,
    shape: Shape,
}

/// The key of [`About`] in a file of weights.
const ABOUT: &str = "relevo-lm";

static BUNDLED: LazyLock<Model> = LazyLock::new(|| {
    let bytes = include_bytes!("../weights/relevo-lm-1.safetensors");
    Model::read(bytes).expect("the weights in the box are sound, or no test would pass")
});

impl Model {
    /// The model in the box.
    pub fn bundled() -> &'static Model {
        &BUNDLED
    }

    /// A model from a file that `relevo lm train` wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        let read = std::fs::read(path);
        Model::read(&read.map_err(|error| WeightsError::Read { path: path.display().to_string(), error })?)
    }

    /// A model from the bytes of such a file.
    ///
    /// # Errors
    ///
    /// If they are something else.
    pub fn read(bytes: &[u8]) -> Result<Self, WeightsError> {
        let form = |what: String| WeightsError::Form(what);
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| form(e.to_string()))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| form(e.to_string()))?;
        let about = metadata.metadata().as_ref().and_then(|m| m.get(ABOUT));
        let about = about.ok_or_else(|| form(format!("they have no metadata `{ABOUT}`")))?;
        let About { name, shape } =
            serde_json::from_str(about).map_err(|e| form(format!("`{ABOUT}`: {e}")))?;
        shape.check().map_err(form)?;
        let plan = shape.plan();
        let mut numbers = vec![0.0; plan.len];
        for (name, matrix) in plan.matrices() {
            let tensor = tensors.tensor(&name).map_err(|e| form(format!("`{name}`: {e}")))?;
            if tensor.dtype() != Dtype::F16 || tensor.shape() != [matrix.rows, matrix.columns] {
                let (rows, columns) = (matrix.rows, matrix.columns);
                return Err(form(format!("`{name}` is not of {rows} x {columns} numbers in f16")));
            }
            let halves = tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
            matrix.of_mut(&mut numbers).iter_mut().zip(halves).for_each(|(to, half)| *to = half);
        }
        if numbers.iter().any(|x| !x.is_finite()) {
            return Err(form("some numbers are not finite".into()));
        }
        let hash = blake3::hash(bytes).to_hex().to_string();
        Ok(Model { network: Network::new(plan, numbers), name, hash })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// BLAKE3 of its file, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How large it is.
    pub fn shape(&self) -> Shape {
        self.network.plan.shape
    }

    /// How many numbers it has learned.
    pub fn parameters(&self) -> usize {
        self.network.plan.len
    }

    /// What the model reads of these messages; the system message names the skill (`answer`, `rationale` or
    /// `step by step`, `check`, `revise`), the others hold a problem and what has been said about it.
    ///
    /// # Errors
    ///
    /// If there is no skill or no problem in them, or one that the model cannot read.
    pub fn prompt(&self, messages: &[(Role, &str)]) -> Result<Prompt, PromptError> {
        Prompt::read(messages, self.network.plan.shape.context)
    }

    /// What follows each prompt. `on_piece` hears the number of a request and more of its text, and may cancel it.
    ///
    /// The text of a request does not depend on the others. All of it happens on this thread.
    pub fn generate(
        &self,
        requests: &[Request],
        on_piece: &mut dyn FnMut(usize, &str) -> Continue,
    ) -> Vec<Completion> {
        let mut batch = Batch::new(&self.network);
        let mut speeches: Vec<Speech> = requests.iter().map(|r| Speech::new(&r.prompt)).collect();
        let empty = |r: &Request| Completion {
            text: String::new(),
            prompt_tokens: r.prompt.tokens.len(),
            completion_tokens: 0,
            finish: Finish::Cancelled,
        };
        let mut completions: Vec<Completion> = requests.iter().map(empty).collect();
        requests.iter().for_each(|r| _ = batch.join(r.start()));
        while !batch.is_over() {
            batch.step(&mut |index, token, finish| {
                let (completion, speech) = (&mut completions[index], &mut speeches[index]);
                completion.completion_tokens += 1;
                let mut piece = speech.push(token);
                if let Some(finish) = finish {
                    piece += &speech.finish();
                    completion.finish = finish;
                }
                completion.text += &piece;
                if piece.is_empty() { Continue::Yes } else { on_piece(index, &piece) }
            });
        }
        completions
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }
}

/// The file of a model: half precision, with its name and shape.
pub(crate) fn write(network: &Network, name: &str) -> Vec<u8> {
    let plan = &network.plan;
    let halves = |matrix: crate::shape::Matrix| {
        let numbers = matrix.of(&network.numbers).iter();
        numbers.flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect::<Vec<u8>>()
    };
    let all: Vec<_> = plan.matrices().into_iter().map(|(name, m)| (name, m, halves(m))).collect();
    let views = all.iter().map(|(name, matrix, bytes)| {
        let view = TensorView::new(Dtype::F16, vec![matrix.rows, matrix.columns], bytes);
        (name, view.expect("two bytes for each number"))
    });
    let about = About { name: name.to_owned(), shape: plan.shape };
    let about = serde_json::to_string(&about).expect("a name and numbers");
    let metadata = std::collections::HashMap::from([(ABOUT.to_owned(), about)]);
    safetensors::serialize(views, Some(metadata)).expect("a few matrices of known sizes")
}
