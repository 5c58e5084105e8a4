//! Whose windows go next: deficit round robin over jobs.
//!
//! Shreedhar and Varghese, "Efficient Fair Queueing using Deficit Round Robin": a job is a flow, a task a packet, and
//! its price the packet's size. Prices are [measured](crate::prices) seconds, so shares of the device are shares of its
//! time. Every batch adds a quantum to each flow's deficit counter: the windows of the smallest job. So no job waits
//! for more than its own step would take from each of the others, and jobs of one size fill wide batches. A batch
//! begins with the next flow in the round whose deficit covers its tasks, and is filled up with tasks of the same stage
//! of the flows after it, each on its own deficit; so jobs share the device evenly however many windows they have. A
//! flow without competition needs no deficit, and prices do not matter to it.

use std::iter::repeat_n;

use panorama::{Limits, Stage};

use crate::prices::{Kind, Prices};

/// A job as the schedule sees it.
pub(crate) trait Flow {
    type Task;

    /// The stage of its next tasks, if it has any.
    fn stage(&self) -> Option<Stage>;
    /// Guidance branches of its tasks; those of a batch have as many.
    fn branches(&self) -> usize;
    /// How many numbers it keeps of pictures that are half decoded, which it goes on with before all else.
    fn kept(&self) -> i64;
    /// How many it keeps if it begins to decode a picture.
    fn keeps(&self) -> i64;
    fn windows(&self) -> usize;
    /// How many tasks it has now, all of its stage.
    fn waiting(&self) -> usize;
    /// What a task of a stage costs, as computed.
    fn price(&self, stage: Stage) -> u64;
    /// Takes up to `limit` tasks.
    fn take(&mut self, limit: usize) -> Vec<Self::Task>;
    /// What it may spend, in nanoseconds of the device.
    fn deficit(&mut self) -> &mut u64;
}

/// What a flow without tasks may save, in quanta: it has tasks again soon, and must not have the device for long then.
const MAX_SAVED: u64 = 4;

/// The stage of the tasks that a flow may do next. What pictures keep until they go on is much: while some are half
/// decoded, which keep `kept` numbers, no more are begun than fit beside them.
fn next_stage<F: Flow>(flow: &F, kept: i64, limits: Limits) -> Option<Stage> {
    let fits = || kept == 0 || flow.kept() > 0 || kept.saturating_add(flow.keeps()) <= limits.kept;
    flow.stage().filter(|&stage| stage != Stage::Decode || fits())
}

/// What a task of a stage costs a flow in a batch of a width.
fn measured<F: Flow>(flow: &F, stage: Stage, width: usize, prices: &Prices) -> u64 {
    prices.of(Kind { stage, branches: flow.branches() }, width, flow.price(stage))
}

/// Where the round is.
#[derive(Default)]
pub(crate) struct Schedule {
    /// The flow that began the last batch.
    turn: usize,
}

/// A batch: tasks of one stage and number of guidance branches, and the index of each one's flow.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch<T> {
    pub(crate) stage: Stage,
    pub(crate) branches: usize,
    pub(crate) owners: Vec<usize>,
    pub(crate) tasks: Vec<T>,
}

impl Schedule {
    /// The next batch. `None` only if no flow has anything to do.
    pub(crate) fn next<F: Flow>(&mut self, flows: &mut [F], limits: Limits, prices: &Prices) -> Option<Batch<F::Task>> {
        let kept = flows.iter().map(Flow::kept).sum();
        let ready = flows.iter().filter(|flow| next_stage(*flow, kept, limits).is_some()).count();
        if ready == 0 {
            return None;
        }
        // No more than an even share of a batch.
        let share = limits.of(Stage::Denoise).div_ceil(ready);
        let windows = flows.iter().map(Flow::windows).min()?.min(share);
        let quantum =
            flows.iter().map(|flow| windows as u64 * measured(flow, Stage::Denoise, windows, prices)).max()?;
        let order = (1..=flows.len()).map(|i| (self.turn + i) % flows.len()).collect();
        let mut round = Round { order, kept, ready, quantum, limits, prices };
        loop {
            for flow in flows.iter_mut() {
                *flow.deficit() += quantum;
            }
            if let Some(leader) = round.order.iter().position(|&i| round.begins(&mut flows[i])) {
                self.turn = round.order[leader];
                round.order.drain(..leader);
                return Some(round.batch(flows));
            }
        }
    }
}

/// What holds while a batch is put together.
struct Round<'a> {
    /// The flows in the order of their turns.
    order: Vec<usize>,
    /// How many numbers the pictures keep that are half decoded.
    kept: i64,
    /// How many have tasks.
    ready: usize,
    /// What each has earned.
    quantum: u64,
    limits: Limits,
    prices: &'a Prices,
}

impl Round<'_> {
    /// Whether a flow begins a batch: it can pay for as many tasks as make one of its own.
    fn begins<F: Flow>(&self, flow: &mut F) -> bool {
        let Some(stage) = next_stage(flow, self.kept, self.limits) else { return false };
        let enough = match (stage, self.limits.widths(stage)) {
            // One gradient at a time would leave cores of a CPU idle, or most of a GPU.
            (Stage::Synchronise, []) => self.limits.of(stage),
            (Stage::Synchronise, widths) => widths.get(1).copied().unwrap_or(1),
            _ => 1,
        };
        self.affordable(flow, stage) >= enough.min(flow.waiting())
    }

    /// How many of its tasks a flow can pay for. Without competition it need not pay.
    fn affordable<F: Flow>(&self, flow: &mut F, stage: Stage) -> usize {
        if self.ready == 1 {
            return flow.waiting();
        }
        let deficit = *flow.deficit();
        let flow = &*flow;
        let max = flow.waiting().min(self.limits.of(stage));
        let pays = |&width: &usize| width as u64 * measured(flow, stage, width, self.prices) <= deficit;
        (1..=max).rev().find(pays).unwrap_or(0)
    }

    /// The batch that the first flow begins, with the tasks of the flows after it.
    fn batch<F: Flow>(self, flows: &mut [F]) -> Batch<F::Task> {
        let (kept, limits) = (self.kept, self.limits);
        let kind = |flow: &F| next_stage(flow, kept, limits).map(|stage| Kind { stage, branches: flow.branches() });
        let Kind { stage, branches } = kind(&flows[self.order[0]]).expect("a flow with tasks begins the batch");
        let members = self.order.iter().copied().filter(|&i| kind(&flows[i]) == Some(Kind { stage, branches }));
        let members: Vec<usize> = members.collect();
        let offers: Vec<usize> = members.iter().map(|&i| self.affordable(&mut flows[i], stage)).collect();
        let width = self.limits.next(stage, offers.iter().sum());
        let mut batch = Batch { stage, branches, owners: Vec::new(), tasks: Vec::new() };
        for (i, offer) in members.into_iter().zip(offers) {
            let count = offer.min(width - batch.tasks.len());
            if count == 0 {
                continue;
            }
            let flow = &mut flows[i];
            let price = measured(flow, stage, width, self.prices);
            let tasks = flow.take(count);
            // A flow between two phases of a step saves little, and one without competition nothing.
            let most = match flow.stage() {
                _ if self.ready == 1 => 0,
                None => MAX_SAVED * self.quantum,
                Some(_) => u64::MAX,
            };
            *flow.deficit() = flow.deficit().saturating_sub(price * tasks.len() as u64).min(most);
            batch.owners.extend(repeat_n(i, tasks.len()));
            batch.tasks.extend(tasks);
        }
        batch
    }
}

#[cfg(test)]
mod tests;
