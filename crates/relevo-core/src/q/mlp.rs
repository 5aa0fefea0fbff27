//! Values by a multilayer perceptron with ReLU units, learned by semi-gradient steps on one number a handoff.
//!
//! For an agent whose features say what matters, but not linearly. The paper's network has three hidden layers of
//! 512 units.

mod saved;

use alloc::{vec, vec::Vec};
use core::ops::Range;
use minicbor::{Decode, Encode};

use super::{
    FeatureError, Inputs, QFunction, ShapeError,
    kernels::{AdamStep, Simd},
    linear::{PARAMETERS_MAX, check_parameters, within},
};
use crate::{
    ids::ActionId,
    observation::{Features, Observation},
    rng::Rng,
    units::UnitError,
};

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimiser {
    /// Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.
    Adam {
        /// Step size, above 0.
        rate: f64,
        /// Decay of the mean gradient, in [0, 1).
        beta1: f64,
        /// Decay of the mean squared gradient, in [0, 1).
        beta2: f64,
        /// Added to the root of the mean squared gradient, above 0.
        epsilon: f64,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// Step size, above 0.
        rate: f64,
    },
}

impl Optimiser {
    /// Adam with the decays of its authors: 0.9, 0.999 and epsilon 1e-8.
    pub fn adam(rate: f64) -> Self {
        Optimiser::Adam { rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }

    fn check(self) -> Result<(), UnitError> {
        let below_one = 1.0 - f64::EPSILON;
        let (Optimiser::Adam { rate, .. } | Optimiser::Sgd { rate }) = self;
        within("learning rate", rate, f64::MIN_POSITIVE, f64::MAX)?;
        if let Optimiser::Adam { beta1, beta2, epsilon, .. } = self {
            within("beta1", beta1, 0.0, below_one)?;
            within("beta2", beta2, 0.0, below_one)?;
            // It is used as an f32, where it must not become 0.
            within("epsilon", epsilon, f64::from(f32::MIN_POSITIVE), f64::MAX)?;
        }
        Ok(())
    }
}

/// What an [`Mlp`] is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpSpec {
    /// The length of the dense features that it reads.
    pub inputs: usize,
    /// The number of units of each hidden layer; none for a linear function.
    pub hidden: Vec<usize>,
    /// The number of choices.
    pub width: usize,
    /// How a gradient becomes a step.
    pub optimiser: Optimiser,
    /// How many updates are collected for one step of the optimiser; 1 for a step at every update.
    pub batch: usize,
    /// The parameters are kept within this distance (l2 norm) of the initial ones (paper, assumption A3: iterates
    /// remain in the trust region).
    pub trust_radius: Option<f64>,
    /// Vbar: the net fits `y - Vbar`, and its values have it added back, so that it does not spend its capacity on
    /// the mean. The initial value of every choice.
    pub offset: f64,
}

impl MlpSpec {
    fn check(&self) -> Result<(), UnitError> {
        let most = PARAMETERS_MAX as f64;
        within("number of inputs", self.inputs as f64, 1.0, most)?;
        within("number of choices", self.width as f64, 1.0, most)?;
        self.hidden.iter().try_for_each(|n| within("units of a hidden layer", *n as f64, 1.0, most))?;
        // In f64, as the products may exceed a usize.
        let (mut parameters, mut units, mut fan_in) = (0.0, 0.0, self.inputs as f64);
        for outputs in self.hidden.iter().chain([&self.width]).map(|n| *n as f64) {
            parameters += (fan_in + 1.0) * outputs;
            units += fan_in + outputs;
            fan_in = outputs;
        }
        within("number of parameters", parameters, 2.0, most)?;
        within("batch", self.batch as f64, 1.0, most)?;
        within("batch times the number of units", self.batch as f64 * units, 1.0, most)?;
        if let Some(radius) = self.trust_radius {
            within("trust radius", radius, f64::MIN_POSITIVE, f64::MAX)?;
        }
        within("value offset", self.offset, f64::MIN, f64::MAX)?;
        self.optimiser.check()
    }
}

/// One affine map, `z = W^T x + b`. Its parameters lie at `start..` as a matrix of shape [inputs + 1, outputs]: row
/// `i < inputs` holds the weights of input `i`, the last row the biases.
#[derive(Clone, Copy, Debug)]
struct Layer {
    start: usize,
    inputs: usize,
    outputs: usize,
}

impl Layer {
    /// Where the parameters of rows `rows` lie.
    fn rows(self, rows: Range<usize>) -> Range<usize> {
        self.start + rows.start * self.outputs..self.start + rows.end * self.outputs
    }

    /// `z = b + sum_i x_i W[i,:]`
    fn forward(self, simd: Simd, parameters: &[f32], x: &[f32], z: &mut [f32]) {
        z.copy_from_slice(&parameters[self.rows(self.inputs..self.inputs + 1)]);
        simd.add_rows(z, x, &parameters[self.rows(0..self.inputs)]);
    }
}

/// What the forward passes of a batch leave for the backward pass.
#[derive(Clone, Debug, Default)]
struct Tape {
    /// The most samples it holds.
    capacity: usize,
    /// The `step` of each sample that it holds.
    steps: Vec<f64>,
    /// For each layer, its inputs: shape [inputs, capacity].
    inputs: Vec<Vec<f32>>,
    /// For each layer, the gradient of the loss at its outputs: shape [capacity, outputs].
    signals: Vec<Vec<f32>>,
}

impl Tape {
    fn new(layers: &[Layer], capacity: usize) -> Tape {
        let zeros = |n: usize| vec![0.0; n * capacity];
        Tape {
            capacity,
            steps: Vec::with_capacity(capacity),
            inputs: layers.iter().map(|l| zeros(l.inputs)).collect(),
            signals: layers.iter().map(|l| zeros(l.outputs)).collect(),
        }
    }

    /// How many samples it holds.
    fn samples(&self) -> usize {
        self.steps.len()
    }

    /// The values of input `i` of layer `l` in all samples.
    fn input(&self, l: usize, i: usize) -> &[f32] {
        &self.inputs[l][i * self.capacity..][..self.samples()]
    }

    /// The signals at the outputs of layer `l` of all samples: shape [samples, outputs].
    fn signals(&self, l: usize, layer: Layer) -> &[f32] {
        &self.signals[l][..self.samples() * layer.outputs]
    }

    /// Carry the signals at the last layer's outputs down to the outputs of each layer before,
    ///
    /// ```text
    /// d_{l-1}[s,i] = 1[x_l[s,i] > 0] sum_o W_l[i,o] d_l[s,o]
    /// ```
    fn backward(&mut self, simd: Simd, layers: &[Layer], parameters: &[f32]) {
        let mut out = vec![0.0; self.samples()];
        for l in (1..layers.len()).rev() {
            let layer = layers[l];
            for i in 0..layer.inputs {
                let weights = &parameters[layer.rows(i..i + 1)];
                simd.dot_rows(&mut out, self.input(l, i), weights, self.signals(l, layer));
                let below = self.signals[l - 1][i..].iter_mut().step_by(layer.inputs);
                below.zip(&out).for_each(|(below, out)| *below = *out);
            }
        }
    }

    /// Calls `visit` with the place and the gradient of each row of parameters in turn,
    ///
    /// ```text
    /// G_l[i,:] = sum_s x_l[s,i] d_l[s,:]        (x = 1 for the biases)
    /// ```
    ///
    /// or with `None` if the gradient is 0 because the input is 0 in all samples.
    fn gradient_rows(
        &self,
        simd: Simd,
        layers: &[Layer],
        mut visit: impl FnMut(Range<usize>, Option<&[f32]>),
    ) {
        let ones = vec![1.0; self.samples()];
        let mut gradient = vec![0.0; layers.iter().map(|l| l.outputs).max().unwrap_or(0)];
        for (l, layer) in layers.iter().enumerate() {
            let gradient = &mut gradient[..layer.outputs];
            for i in 0..=layer.inputs {
                let x = if i < layer.inputs { self.input(l, i) } else { &ones };
                let active = x.iter().any(|x| *x != 0.0);
                if active {
                    gradient.fill(0.0);
                    simd.add_rows(gradient, x, self.signals(l, *layer));
                }
                visit(layer.rows(i..i + 1), active.then_some(gradient));
            }
        }
    }
}

/// The gradient of `1/2 (Q(o, a) - target)^2` by all parameters, the target held constant (a semi-gradient).
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    /// `target - Q(o, a)`.
    pub error: f64,
    /// In the order of [`Mlp::parameters`].
    pub parameters: Vec<f32>,
}

/// Adam's state, in the order of the parameters; empty for gradient descent.
#[derive(Clone, Debug, Default, Encode, Decode)]
#[cbor(array)]
struct Moments {
    #[n(0)]
    mean: Vec<f32>,
    #[n(1)]
    square: Vec<f32>,
    #[n(2)]
    steps: u64,
}

impl Moments {
    fn new(optimiser: Optimiser, parameters: usize) -> Moments {
        match optimiser {
            Optimiser::Adam { .. } => {
                Moments { mean: vec![0.0; parameters], square: vec![0.0; parameters], steps: 0 }
            }
            Optimiser::Sgd { .. } => Moments::default(),
        }
    }
}

/// A multilayer perceptron, `Q(o, .) = Vbar + W_L^T relu(.. relu(W_0^T x + b_0) ..) + b_L`, in f32.
///
/// Updates are collected, each with the signal that its error sends back, and every `batch` of them make one step of
/// the optimiser. The samples' gradients are averaged with their `step`s as weights and the optimiser's rate is
/// multiplied by the mean `step`:
///
/// ```text
/// g = sum_s step_s grad_s / sum_s step_s,    rate' = rate (1/n) sum_s step_s
/// ```
///
/// For gradient descent this weights each sample's gradient by its step and nothing else; for Adam, which does not
/// feel the size of a gradient, it is what makes a falling `step` a falling rate. Values always come from the
/// parameters as they are, without the updates still collected; [`Mlp::flush`] applies those.
///
/// A clone has its own parameters, optimiser state and collected updates, and goes on to the same bits. The bits
/// depend on the spec, the generator, the calls, and on whether the machine has fused multiply-add.
#[derive(Clone, Debug)]
pub struct Mlp {
    spec: MlpSpec,
    simd: Simd,
    layers: Vec<Layer>,
    parameters: Vec<f32>,
    /// The initial parameters, where a trust region is centred on them.
    centre: Option<Vec<f32>>,
    moments: Moments,
    tape: Tape,
}

impl Mlp {
    /// A net with random hidden layers (He et al. 2015: weights normal of variance 2 / inputs, biases 0) and an
    /// output layer of zeros, so that every value starts at the offset. Refused for a spec without inputs, units
    /// or choices, for one above 2^28 parameters or numbers to remember, and for rates outside of their ranges.
    pub fn new(spec: MlpSpec, rng: &mut Rng) -> Result<Mlp, ShapeError> {
        spec.check()?;
        let (mut layers, mut parameters) = (Vec::new(), Vec::new());
        let mut inputs = spec.inputs;
        for outputs in spec.hidden.iter().copied() {
            layers.push(Layer { start: parameters.len(), inputs, outputs });
            let deviation = libm::sqrt(2.0 / inputs as f64);
            parameters.extend((0..inputs * outputs).map(|_| (deviation * rng.normal()) as f32));
            parameters.resize(parameters.len() + outputs, 0.0);
            inputs = outputs;
        }
        layers.push(Layer { start: parameters.len(), inputs, outputs: spec.width });
        parameters.resize(parameters.len() + (inputs + 1) * spec.width, 0.0);

        Ok(Mlp {
            simd: Simd::detect(),
            tape: Tape::new(&layers, spec.batch),
            centre: spec.trust_radius.map(|_| parameters.clone()),
            moments: Moments::new(spec.optimiser, parameters.len()),
            layers,
            parameters,
            spec,
        })
    }

    /// What it is made of.
    pub fn spec(&self) -> &MlpSpec {
        &self.spec
    }

    /// Refuses an observation whose features this estimator cannot read. To be called once for each observation
    /// that enters; [`QFunction::values`] and [`QFunction::update`] then take it for granted.
    pub fn accepts(&self, o: &Observation) -> Result<(), FeatureError> {
        Inputs::Dense(self.spec.inputs).accepts(&o.features)
    }

    /// All parameters, layer after layer, each of shape [inputs + 1, outputs] with the biases in the last row.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// Take over the parameters of a net of the same shape; refused for another length or if a number is not finite.
    ///
    /// The optimiser starts afresh and collected updates are forgotten, as both belong to the old parameters. A
    /// trust region stays where it was, and is imposed again by the next step.
    pub fn set_parameters(&mut self, parameters: &[f32]) -> Result<(), ShapeError> {
        check_parameters(self.parameters.len(), parameters.iter().map(|p| f64::from(*p)))?;
        self.parameters.copy_from_slice(parameters);
        self.moments = Moments::new(self.spec.optimiser, parameters.len());
        self.tape.steps.clear();
        Ok(())
    }

    /// The gradient of `1/2 (Q(o, a) - target)^2`, without a step.
    pub fn gradient(&self, o: &Observation, a: ActionId, target: f64) -> Gradient {
        let mut tape = Tape::new(&self.layers, 1);
        let error = self.record(&mut tape, o, a, target, 1.0);
        tape.backward(self.simd, &self.layers, &self.parameters);
        let mut parameters = vec![0.0; self.parameters.len()];
        tape.gradient_rows(self.simd, &self.layers, |at, g| {
            if let Some(g) = g {
                parameters[at].copy_from_slice(g);
            }
        });
        Gradient { error, parameters }
    }

    /// Apply the updates collected since the last full batch, as a smaller batch; nothing if there are none.
    pub fn flush(&mut self) {
        if self.tape.steps.iter().any(|step| *step > 0.0) {
            self.step();
        }
        self.tape.steps.clear();
    }

    /// Calls `enter` with the number and the inputs of each layer, and returns the last layer's outputs.
    fn forward(&self, o: &Observation, mut enter: impl FnMut(usize, &[f32])) -> Vec<f32> {
        debug_assert_eq!(self.accepts(o), Ok(()));
        let Features::Dense(x) = &o.features else { return vec![0.0; self.spec.width] };
        let mut x = x.to_vec();
        x.resize(self.spec.inputs, 0.0);
        for (l, layer) in self.layers.iter().enumerate() {
            if l > 0 {
                self.simd.relu(&mut x);
            }
            enter(l, &x);
            let mut z = vec![0.0; layer.outputs];
            layer.forward(self.simd, &self.parameters, &x, &mut z);
            x = z;
        }
        x
    }

    /// Append a sample to the tape: the inputs of every layer, and at the last one's outputs the signal `Q - y` for
    /// `a` and 0 for the others. Returns `y - Q`.
    fn record(&self, tape: &mut Tape, o: &Observation, a: ActionId, target: f64, step: f64) -> f64 {
        let (sample, last) = (tape.samples(), self.layers.len() - 1);
        let outputs = self.forward(o, |l, x| {
            let column = tape.inputs[l][sample..].iter_mut().step_by(tape.capacity);
            column.zip(x).for_each(|(entry, x)| *entry = *x);
        });
        let error = target - self.spec.offset - f64::from(outputs[a.index()]);
        let signal = &mut tape.signals[last][sample * self.spec.width..][..self.spec.width];
        signal.fill(0.0);
        signal[a.index()] = -error as f32;
        tape.steps.push(step);
        error
    }

    /// One step of the optimiser with what is on the tape, then the projection.
    fn step(&mut self) {
        let Mlp { spec, simd, layers, parameters, moments, tape, .. } = self;
        let (simd, last, sum) = (*simd, layers.len() - 1, tape.steps.iter().sum::<f64>());
        // g = sum_s step_s grad_s / sum_s step_s,  rate' = rate (1/n) sum_s step_s
        for (signal, step) in tape.signals[last].chunks_exact_mut(spec.width).zip(&tape.steps) {
            signal.iter_mut().for_each(|d| *d *= (step / sum) as f32);
        }
        let scale = sum / tape.samples() as f64;

        tape.backward(simd, layers, parameters);
        match spec.optimiser {
            Optimiser::Adam { rate, beta1, beta2, epsilon } => {
                let Moments { mean, square, steps } = moments;
                *steps += 1;
                let left = |beta: f64| 1.0 - libm::pow(beta, *steps as f64);
                let step = AdamStep {
                    rate: (rate * scale / left(beta1)) as f32,
                    beta1: beta1 as f32,
                    beta2: beta2 as f32,
                    correction: (1.0 / left(beta2)) as f32,
                    epsilon: epsilon as f32,
                };
                let zeros = vec![0.0; layers.iter().map(|l| l.outputs).max().unwrap_or(0)];
                tape.gradient_rows(simd, layers, |at, g| {
                    let g = g.unwrap_or(&zeros[..at.len()]);
                    simd.adam(&mut parameters[at.clone()], &mut mean[at.clone()], &mut square[at], g, step);
                });
            }
            Optimiser::Sgd { rate } => tape.gradient_rows(simd, layers, |at, g| {
                if let Some(g) = g {
                    simd.axpy(&mut parameters[at], (-rate * scale) as f32, g);
                }
            }),
        }
        self.project();
    }

    /// `theta = theta_0 + min(1, radius / |theta - theta_0|) (theta - theta_0)` (paper, assumption A3).
    fn project(&mut self) {
        if let (Some(radius), Some(centre)) = (self.spec.trust_radius, &self.centre) {
            let distance = libm::sqrt(self.simd.distance_squared(&self.parameters, centre));
            if distance > radius {
                self.simd.contract(&mut self.parameters, centre, (radius / distance) as f32);
            }
        }
    }
}

impl QFunction for Mlp {
    fn width(&self) -> usize {
        self.spec.width
    }

    fn values(&self, o: &Observation, out: &mut [f64]) {
        let outputs = self.forward(o, |_, _| {});
        out[..self.spec.width]
            .iter_mut()
            .zip(outputs)
            .for_each(|(q, z)| *q = self.spec.offset + f64::from(z));
    }

    /// Follow the gradient of `1/2 (Q(o, a) - target)^2` with weight `step`, which must not be negative: at once or
    /// with the batch that this completes.
    fn update(&mut self, o: &Observation, a: ActionId, target: f64, step: f64) -> f64 {
        debug_assert!(target.is_finite() && step.is_finite() && step >= 0.0);
        let mut tape = core::mem::take(&mut self.tape);
        let error = self.record(&mut tape, o, a, target, step);
        self.tape = tape;
        if self.tape.samples() == self.tape.capacity {
            self.flush();
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::ActionSet;
    use core::f64::consts::TAU;

    const SGD: Optimiser = Optimiser::Sgd { rate: 0.1 };

    fn spec(inputs: usize, hidden: &[usize], width: usize, optimiser: Optimiser) -> MlpSpec {
        MlpSpec { inputs, hidden: hidden.into(), width, optimiser, batch: 1, trust_radius: None, offset: 0.0 }
    }

    /// A net whose output layer and biases are random too.
    fn net(spec: MlpSpec) -> Mlp {
        let mut rng = Rng::stream(5, "mlp");
        let mut net = Mlp::new(spec, &mut rng).unwrap();
        let parameters: Vec<_> = net.parameters.iter().map(|w| w + 0.3 * rng.normal() as f32).collect();
        net.set_parameters(&parameters).unwrap();
        net.centre = net.centre.map(|_| parameters);
        net
    }

    fn observation(x: &[f32]) -> Observation {
        Observation {
            features: Features::Dense(x.into()),
            legal: ActionSet::all(1),
            ..Observation::default()
        }
    }

    fn samples(n: usize, inputs: usize, width: u32) -> impl Iterator<Item = (Observation, ActionId, f64)> {
        let mut rng = Rng::stream(6, "samples");
        (0..n).map(move |_| {
            let x: Vec<_> = (0..inputs).map(|_| rng.normal() as f32).collect();
            (observation(&x), ActionId(rng.below(width)), rng.normal())
        })
    }

    fn values(net: &Mlp, o: &Observation) -> Vec<f64> {
        let mut out = vec![0.0; net.width()];
        net.values(o, &mut out);
        out
    }

    /// The net as a formula, in f64.
    fn naive(net: &Mlp, parameters: &[f64], o: &Observation) -> Vec<f64> {
        let Features::Dense(x) = &o.features else { unreachable!() };
        let mut x: Vec<_> = x.iter().map(|x| f64::from(*x)).collect();
        for (l, layer) in net.layers.iter().enumerate() {
            let w = |i: usize, j: usize| parameters[layer.start + i * layer.outputs + j];
            let z = |j| x.iter().enumerate().fold(w(layer.inputs, j), |z, (i, x)| z + w(i, j) * x);
            let z: Vec<_> = (0..layer.outputs).map(z).collect();
            x = if l + 1 < net.layers.len() { z.iter().map(|z| z.max(0.0)).collect() } else { z };
        }
        x.iter().map(|q| q + net.spec.offset).collect()
    }

    /// Values and gradients against the formula in f64 and its central differences (h = 1e-6), for 0 to 3 hidden
    /// layers; tolerance 1e-4 of the largest derivative.
    #[test]
    fn the_gradient_is_the_derivative() {
        for hidden in [&[][..], &[7], &[9, 5], &[6, 17, 4]] {
            let net = net(MlpSpec { offset: 2.0, ..spec(3, hidden, 4, SGD) });
            for (o, a, y) in samples(5, 3, 4) {
                let mut theta: Vec<_> = net.parameters.iter().map(|w| f64::from(*w)).collect();
                let q = naive(&net, &theta, &o);
                q.iter().zip(values(&net, &o)).for_each(|(q, got)| assert!((q - got).abs() < 1e-5));
                let gradient = net.gradient(&o, a, y);
                assert!((gradient.error - (y - q[a.index()])).abs() < 1e-5);
                let largest = gradient.parameters.iter().fold(0f32, |m, g| m.max(g.abs()));
                for (i, got) in gradient.parameters.iter().enumerate() {
                    let mut loss = |w: f64| {
                        let before = core::mem::replace(&mut theta[i], w);
                        let error = naive(&net, &theta, &o)[a.index()] - y;
                        theta[i] = before;
                        0.5 * error * error
                    };
                    let (w, h) = (f64::from(net.parameters[i]), 1e-6);
                    let want = (loss(w + h) - loss(w - h)) / (2.0 * h);
                    assert!((f64::from(*got) - want).abs() <= 1e-4 * f64::from(largest), "{i}: {got} {want}");
                }
            }
        }
    }

    /// One batch step of descent is the mean of the samples' gradients weighted by their steps; a flushed batch is
    /// the mean of what it has. Tolerance 1e-6.
    #[test]
    fn a_batch_is_the_mean_gradient() {
        for n in [1, 31, 32] {
            let mut net = net(MlpSpec { batch: 32, ..spec(3, &[8, 8], 4, SGD) });
            let mut want: Vec<_> = net.parameters.iter().map(|w| f64::from(*w)).collect();
            let before = net.clone();
            for (s, (o, a, y)) in samples(n, 3, 4).enumerate() {
                assert_eq!(net.parameters, before.parameters);
                let (step, gradient) = (1.0 / (1.0 + s as f64), before.gradient(&o, a, y));
                want.iter_mut().zip(&gradient.parameters).for_each(|(w, g)| {
                    *w -= 0.1 * step / n as f64 * f64::from(*g);
                });
                assert_eq!(net.update(&o, a, y, step), gradient.error);
            }
            net.flush();
            want.iter().zip(&net.parameters).for_each(|(w, got)| assert!((w - f64::from(*got)).abs() < 1e-6));
            let flushed = net.parameters.clone();
            net.flush();
            assert_eq!(net.parameters, flushed);
        }
    }

    /// Three steps against Kingma and Ba's algorithm in f64, with a rate scaled by `step`; tolerance 1e-6.
    #[test]
    fn adam_is_the_published_algorithm() {
        let mut net = net(spec(3, &[8], 4, Optimiser::adam(0.01)));
        let mut naive: Vec<_> = net.parameters.iter().map(|w| (f64::from(*w), 0.0, 0.0)).collect();
        for (t, (o, a, y)) in (1..).zip(samples(3, 3, 4)) {
            let step = 1.0 / f64::from(t);
            for ((w, m, v), g) in naive.iter_mut().zip(net.gradient(&o, a, y).parameters) {
                let g = f64::from(g);
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                let (mean, square) = (*m / (1.0 - 0.9f64.powi(t)), *v / (1.0 - 0.999f64.powi(t)));
                *w -= 0.01 * step * mean / (square.sqrt() + 1e-8);
            }
            net.update(&o, a, y, step);
            naive.iter().zip(&net.parameters).for_each(|(n, w)| assert!((n.0 - f64::from(*w)).abs() < 1e-6));
        }
    }

    /// Within f32 rounding, 1e-6 of the radius.
    #[test]
    fn iterates_stay_in_the_trust_region_and_reach_its_sphere() {
        for optimiser in [SGD, Optimiser::adam(0.01)] {
            let mut net = net(MlpSpec { trust_radius: Some(0.5), ..spec(3, &[8, 8], 4, optimiser) });
            let centre: Vec<_> = net.parameters.clone();
            let (mut free, mut largest) = (Mlp { centre: None, ..net.clone() }, 0.0f64);
            for (o, a, y) in samples(300, 3, 4) {
                free.set_parameters(&net.parameters).unwrap();
                free.moments = net.moments.clone();
                net.update(&o, a, y + 3.0, 1.0);
                free.update(&o, a, y + 3.0, 1.0);
                let squares =
                    |x: &[f32]| x.iter().zip(&centre).map(|(x, c)| f64::from(x - c).powi(2)).sum::<f64>();
                let (distance, without) = (squares(&net.parameters).sqrt(), squares(&free.parameters).sqrt());
                assert!((distance - without.min(0.5)).abs() < 1e-6 * 0.5, "{distance} {without}");
                largest = largest.max(without);
            }
            assert!(largest > 0.5);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let run = || {
            let spec =
                MlpSpec { batch: 4, trust_radius: Some(3.0), ..spec(3, &[33, 17], 4, Optimiser::adam(0.01)) };
            let mut net = Mlp::new(spec, &mut Rng::stream(9, "same")).unwrap();
            for (n, (o, a, y)) in samples(500, 3, 4).enumerate() {
                net.update(&o, a, y, 1.0);
                if n == 250 {
                    net = net.clone();
                }
            }
            net.parameters.iter().map(|w| w.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    /// 40,000 samples of 64 points of the circle, around a mean of 10; mean squared error below 2e-4 (the function's
    /// variance is 0.75) for this seed.
    #[test]
    fn learns_a_smooth_function_around_the_offset() {
        let q = |z: f64, a: f64| 10.0 + libm::sin(z + a) + 0.7 * libm::cos(2.0 * z);
        let at = |z: u32| TAU * f64::from(z) / 64.0;
        let see = |z: f64| observation(&[libm::cos(z) as f32, libm::sin(z) as f32]);
        let spec = MlpSpec { batch: 32, offset: 10.0, ..spec(2, &[32], 2, Optimiser::adam(5e-3)) };
        let mut rng = Rng::stream(4, "learn");
        let mut net = Mlp::new(spec, &mut rng).unwrap();
        assert_eq!(values(&net, &see(1.0)), [10.0, 10.0]);
        let n = 40_000;
        for i in 0..n {
            let (z, a) = (at(rng.below(64)), rng.below(2));
            net.update(&see(z), ActionId(a), q(z, f64::from(a)), 1.0 - f64::from(i) / f64::from(n));
        }
        let errors = (0..64).flat_map(|z| {
            let got = values(&net, &see(at(z)));
            [0, 1].map(|a| got[a] - q(at(z), a as f64))
        });
        let mse = errors.map(|e| e * e).sum::<f64>() / 128.0;
        assert!(mse < 2e-4, "{mse}");
    }

    #[test]
    fn refusals() {
        let good = spec(2, &[3], 2, SGD);
        let mut net = Mlp::new(good.clone(), &mut Rng::stream(1, "refusals")).unwrap();
        assert_eq!(net.accepts(&observation(&[1.0, 2.0])), Ok(()));
        assert!(net.accepts(&observation(&[1.0])).is_err());
        assert!(net.set_parameters(&[0.0; 5]).is_err());
        assert!(net.set_parameters(&[f32::NAN; 17]).is_err());
        assert_eq!(net.set_parameters(&[1.0; 17]), Ok(()));
        for bad in [
            MlpSpec { inputs: 0, ..good.clone() },
            MlpSpec { width: 0, ..good.clone() },
            MlpSpec { hidden: vec![3, 0], ..good.clone() },
            MlpSpec { hidden: vec![usize::MAX; 2], ..good.clone() },
            MlpSpec { batch: 0, ..good.clone() },
            MlpSpec { batch: 1 << 27, ..good.clone() },
            MlpSpec { trust_radius: Some(0.0), ..good.clone() },
            MlpSpec { offset: f64::NAN, ..good.clone() },
            MlpSpec { optimiser: Optimiser::Sgd { rate: -1.0 }, ..good.clone() },
            MlpSpec {
                optimiser: Optimiser::Adam { rate: 1.0, beta1: 1.0, beta2: 0.9, epsilon: 1e-8 },
                ..good.clone()
            },
        ] {
            assert!(Mlp::new(bad, &mut Rng::stream(1, "refusals")).is_err());
        }
    }
}
