//! What is known of the other nodes of the store: which model new predictions are for, who draws it, how fast, and what
//! nobody draws.

use geometry::kept_steps;
use protocol::{Input, Model, Scheduler};

use super::shared::{Shared, Table};
use crate::input::{Geometry, Invalid, geometry_of};
use crate::store::{About, Board};
use crate::wire::Prediction;

/// How much is told of why something cannot be used, in characters.
const MAX_WHY: usize = 1000;
/// What a model without an encoder cannot be used with.
const IMAGE: &str = "image";

impl Table {
    /// Takes in what the other nodes say of themselves, and what one with a worker said last that may be gone.
    pub(super) fn meet(&mut self, others: Vec<About>, last: Option<About>) {
        self.fleet |= !others.is_empty();
        self.others = others;
        // The newest: whoever starts a server with another model wants that one.
        let told = self.others.iter().rfind(|about| about.draws()).cloned();
        if let Some(told) = told.or(last.filter(|last| last.model.is_some())) {
            self.told = Some(told);
        }
        if self.workers.slots().is_empty() && self.takes_work() {
            self.setup.succeed();
        }
    }

    /// What this node says of itself.
    pub(super) fn about(&self) -> About {
        let unusable = self.unusable.iter().map(|(name, why)| (name.clone(), why.chars().take(MAX_WHY).collect()));
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.model.clone(),
            unusable: unusable.collect(),
            workers: Some(self.workers.slots().len() as u64),
            ready: self.workers.slots().iter().filter(|slot| slot.is_ready() && !self.closing).count() as u64,
            free: if self.closing { 0 } else { self.workers.free() as u64 },
            units_per_second: self
                .rate
                .seconds(1.0)
                .filter(|seconds| *seconds > 0.0)
                .map(|seconds| self.workers.share() as f64 / seconds),
        }
    }

    /// The model that new predictions are for: that of this node's workers, or of others'.
    pub(super) fn model(&self) -> Option<&Model> {
        let own = self.model.as_ref();
        let told = self.told.as_ref().and_then(|told| told.model.as_ref());
        let others_draw = self.others.iter().any(About::draws);
        if !self.workers.accept_work() && (others_draw || self.accepts_without_workers) {
            told.or(own)
        } else {
            own.or(told)
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.model().map(geometry_of).unwrap_or_default()
    }

    /// Takes in what a worker says its model cannot be used with: schedulers, and pictures that are encoded.
    pub(super) fn rule_out(&mut self, schedulers: Vec<(Scheduler, String)>, no_encoder: Option<String>) {
        let schedulers = schedulers.into_iter().map(|(of, why)| (of.name().to_owned(), why));
        self.unusable = schedulers.chain(no_encoder.map(|why| (IMAGE.to_owned(), why))).collect();
    }

    /// What of an input the model cannot do.
    pub(super) fn misfits(&self, input: &Input) -> Vec<Invalid> {
        let Some(model) = self.model() else { return Vec::new() };
        let own = (self.model.as_ref(), &self.unusable);
        let told = self.told.as_ref().map(|told| (told.model.as_ref(), &told.unusable));
        let known: Vec<_> = std::iter::once(own)
            .chain(told)
            .filter(|(of, _)| of.is_some_and(|of| of.version == model.version))
            .collect();
        // A picture of which nothing is kept is not encoded.
        let is_kept = kept_steps(input.num_inference_steps, input.strength.unwrap_or(0.0)) > 0;
        let image = (input.image.is_some() && is_kept).then_some((IMAGE, IMAGE));
        let used = image.into_iter().chain([("scheduler", input.scheduler.name())]);
        let misfit = |(field, name): (&str, &str)| {
            let why = known.iter().find_map(|(_, unusable)| unusable.get(name))?;
            Some(Invalid { field: field.to_owned(), message: why.clone(), kind: "value_error" })
        };
        used.filter_map(misfit).collect()
    }

    /// Whether a worker is there for new predictions, or was and comes back.
    pub(super) fn is_staffed(&self) -> bool {
        self.workers.accept_work() || self.others_ready() > 0
    }

    /// Whether new predictions are accepted, also for a worker that is yet to come.
    pub(super) fn takes_work(&self) -> bool {
        self.is_staffed() || (self.accepts_without_workers && self.told.is_some())
    }

    /// Whether this node looks after what others have left. One with workers leaves that to those without, as long as
    /// there is one: where they are apart, those without workers are the ones that may send webhooks.
    pub(super) fn adopts(&self) -> bool {
        self.workers.slots().is_empty() || !self.others.iter().any(|about| about.workers == Some(0))
    }

    /// Whether a node draws what was accepted for a version of a model.
    pub(super) fn serves(&self, version: &str) -> bool {
        let is_it = |model: &Option<Model>| model.as_ref().is_some_and(|model| model.version == version);
        (self.workers.accept_work() && is_it(&self.model))
            || self.others.iter().any(|about| about.draws() && is_it(&about.model))
    }

    /// The other nodes that draw what new predictions are for.
    fn peers(&self) -> impl Iterator<Item = &About> {
        let version = self.model().map(|model| &model.version);
        self.others.iter().filter(move |about| about.model.as_ref().map(|model| &model.version) == version)
    }

    /// How many workers of other nodes are ready.
    pub(super) fn others_ready(&self) -> u64 {
        self.peers().map(|about| about.ready).sum()
    }

    /// How many predictions other nodes could start at once.
    pub(super) fn others_free(&self) -> u64 {
        self.peers().map(|about| about.free).sum()
    }

    /// Cost that all nodes get through in a second, if there are others and that is known. While none has a worker,
    /// that of the one that had it last.
    pub(super) fn fleet_speed(&self) -> Option<f64> {
        let last = self.told.as_ref().filter(|_| !self.is_staffed()).and_then(|told| told.units_per_second);
        if last.is_some() || self.others.is_empty() {
            return last;
        }
        let own = self.model.as_ref().filter(|own| self.model().is_some_and(|model| model.version == own.version));
        let own = own.and_then(|_| self.about().units_per_second);
        let all = self.peers().filter_map(|about| about.units_per_second).chain(own);
        Some(all.sum()).filter(|speed| *speed > 0.0)
    }

    /// How much waits that is in nobody's way: for versions that no node draws, and that new predictions are not for.
    pub(super) fn stranded(&self) -> Board {
        let ours = self.model().map(|model| &model.version);
        let stranded =
            self.unserved.iter().filter(|(version, _)| Some(*version) != ours && !self.serves(version.as_str()));
        stranded.fold(Board::default(), |sum, (_, board)| Board {
            waiting: sum.waiting + board.waiting,
            units: sum.units + board.units,
        })
    }
}

impl Shared {
    /// Whether a worker is there that could draw a prediction.
    pub(super) fn is_served(&self, table: &Table, prediction: &Prediction) -> bool {
        !self.options.own_model || prediction.version.as_deref().is_none_or(|version| table.serves(version))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(version: &str) -> Model {
        let model = json!({
            "name": "m", "version": version, "window": 64, "vae_factor": 8, "device": "cpu", "dtype": "f32"
        });
        serde_json::from_value(model).unwrap()
    }

    /// A node with a worker.
    fn about(version: &str) -> About {
        let unusable = [("unipc".to_owned(), format!("not with {version}"))].into();
        About {
            model: Some(model(version)),
            unusable,
            ready: 1,
            free: 2,
            units_per_second: Some(10.0),
            ..About::default()
        }
    }

    /// What is remembered of it.
    fn gone(version: &str) -> About {
        About { ready: 0, free: 0, ..about(version) }
    }

    fn version(table: &Table) -> Option<&str> {
        table.model().map(|model| model.version.as_str())
    }

    fn why(table: &Table) -> Option<String> {
        let input = json!({"prompt": "a", "scheduler": "unipc"});
        let misfits = table.misfits(&crate::input::parse(&input, None).unwrap().input);
        misfits.into_iter().next().map(|invalid| invalid.message)
    }

    #[test]
    fn a_model_without_an_encoder_refuses_pictures_that_are_kept() {
        let mut worker = Table::new(1);
        worker.model = Some(model("a"));
        worker.rule_out(vec![(Scheduler::UniPc, "no unipc".to_owned())], Some("no image".to_owned()));
        // As another server hears of it.
        let mut table = Table::new(0);
        table.meet(vec![About { ready: 1, ..worker.about() }], None);
        let misfits = |more: serde_json::Value| {
            let mut input = json!({"prompt": "a", "num_inference_steps": 10});
            input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let misfits = table.misfits(&crate::input::parse(&input, None).unwrap().input);
            misfits.into_iter().map(|invalid| (invalid.field, invalid.message)).collect::<Vec<_>>()
        };
        let image = ("image".to_owned(), "no image".to_owned());
        let scheduler = ("scheduler".to_owned(), "no unipc".to_owned());
        let picture = "https://a/b";
        assert_eq!(misfits(json!({"image": picture, "scheduler": "unipc"})), [image.clone(), scheduler.clone()]);
        assert_eq!(misfits(json!({"image": picture, "strength": 0.9})), [image]);
        assert_eq!(misfits(json!({"image": picture, "strength": 1})), [], "nothing of it is kept");
        assert_eq!(misfits(json!({"anchor_image": picture})), []);
        assert_eq!(misfits(json!({"scheduler": "unipc"})), [scheduler]);
    }

    #[test]
    fn a_node_without_workers_knows_what_others_say_and_remembers_it() {
        let mut table = Table::new(0);
        assert_eq!((version(&table), why(&table), table.takes_work()), (None, None, false));
        table.meet(vec![about("b"), about("a"), About::default()], Some(gone("b")));
        assert_eq!((version(&table), why(&table).as_deref()), (Some("a"), Some("not with a")));
        assert_eq!((table.others_ready(), table.others_free()), (1, 2), "those with another model do not count");
        assert_eq!(table.fleet_speed(), Some(10.0));
        table.meet(vec![about("b")], Some(gone("a")));
        assert_eq!((version(&table), table.takes_work()), (Some("b"), true));
        table.meet(Vec::new(), Some(gone("b")));
        assert_eq!((why(&table).as_deref(), table.takes_work()), (Some("not with b"), false));
        table.accepts_without_workers = true;
        assert!(table.takes_work() && !table.is_staffed() && !table.serves("b"));
        assert_eq!(table.fleet_speed(), Some(10.0), "as if the last one was there");
        let room = table.room(5, Some(30.0));
        assert_eq!((room.free, room.jobs, room.units), (0, 5, 300.0));
    }

    #[test]
    fn a_node_with_workers_is_for_its_own_model_once_it_has_loaded() {
        let mut table = Table::new(1);
        table.model = Some(model("own"));
        table.unusable.insert("unipc".to_owned(), "not with own".to_owned());
        table.meet(Vec::new(), Some(gone("a")));
        assert_eq!(version(&table), Some("own"));
        table.meet(vec![about("a")], Some(gone("a")));
        assert_eq!((version(&table), why(&table).as_deref()), (Some("a"), Some("not with a")), "others draw meanwhile");
        table.workers.slot(0).ready(1);
        assert_eq!((version(&table), why(&table).as_deref()), (Some("own"), Some("not with own")));
        assert!(table.serves("own") && table.serves("a") && !table.serves("b"));
        assert_eq!(table.others_ready(), 0);
        assert_eq!(table.about().unusable["unipc"], "not with own");
    }

    #[test]
    fn nodes_without_workers_look_after_what_others_left() {
        let (mut door, mut drawing) = (Table::new(0), Table::new(1));
        let (of_door, of_drawing) = (door.about(), drawing.about());
        assert!(door.adopts() && drawing.adopts(), "alone");
        drawing.meet(vec![of_drawing.clone(), About::default()], None);
        assert!(drawing.adopts(), "an older program does not say what it has");
        drawing.meet(vec![of_door.clone(), of_drawing.clone()], None);
        door.meet(vec![of_door, of_drawing], None);
        assert!(door.adopts() && !drawing.adopts());
    }

    #[test]
    fn what_nobody_draws_is_in_nobodys_way() {
        let mut table = Table::new(0);
        table.meet(vec![about("a")], None);
        let (old, new) = (Board { waiting: 3, units: 30.0 }, Board { waiting: 5, units: 50.0 });
        table.unserved = [("old".to_owned(), old), ("a".to_owned(), new)].into();
        assert_eq!(table.stranded(), old, "the other is drawn again");
        let room = table.room(5, Some(1.0));
        assert_eq!((room.free, room.jobs, room.units), (5, 10, 40.0));
        table.meet(Vec::new(), None);
        assert_eq!(table.stranded(), old, "new ones are still for the other");
        table.meet(vec![about("old"), about("a")], None);
        assert_eq!(table.stranded(), Board::default());
    }
}
