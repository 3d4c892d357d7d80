//! A script from a recording of inputs.

use jiff::Timestamp;

use super::answers::Answers;
use super::{Question, Script, Step};
use crate::core::ids::MS;
use crate::core::input::Input;
use crate::recording::{Entry, Recording};

/// How late the ticks of a recording without rests may be.
const LATE: u64 = 5 * MS;

impl Script {
    /// Of a recording. `agent` is who recorded it, where the recording does not say.
    pub fn of_recording(recording: Recording, agent: Option<u32>) -> Self {
        let mut answers = Answers::default();
        let (mut steps, mut records, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rests, mut configured) = (false, 0);
        for entry in recording.entries {
            match entry {
                Entry::Input(taken) => {
                    let (now, input) = (taken.now, taken.input);
                    answers.learn(now, &input);
                    configured += u32::from(matches!(input, Input::Configured { .. }));
                    steps.push(match Question::answered_by(&input) {
                        Some(_) => Step::Answer { now, input },
                        None => Step::World { now, input },
                    });
                }
                Entry::Record(record) => records.push(*record),
                Entry::Rest(rest) => {
                    rests = true;
                    steps.push(Step::Rest(rest.rest));
                }
                Entry::Full(full) => notes.push(format!(
                    "the recording was full at {} bytes (--record-limit): what came later is not in it",
                    full.full
                )),
            }
        }
        if configured > 1 {
            notes.push(format!(
                "the recorded agent took over a configuration {configured} times; this one is used from the beginning"
            ));
        }
        let agent = recording.header.as_ref().map(|h| h.agent).or(agent);
        if agent.is_none() {
            notes.push(
                "the recording does not say who recorded it (--agent): the agent's own signals look like anybody's, and its \
                 ancestors are not known"
                    .to_owned(),
            );
        }
        let clock =
            recording.header.and_then(|h| h.ts.parse::<Timestamp>().ok().map(|wall| (h.boot_ns, wall)));
        if clock.is_none() {
            notes.push("the recording does not say when it was made: times count from boot".to_owned());
        }
        Self {
            agent,
            steps,
            // A recording without a header was made by something that wrote inputs only.
            records: (rests || !records.is_empty()).then_some(records),
            known: Box::new(answers),
            clock,
            notes,
            slack: (!rests).then_some(LATE),
            verdicts_only: false,
        }
    }
}
