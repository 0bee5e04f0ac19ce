//! Rules of the store that can be broken on purpose, to see whether the tests would notice.

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A report that is older than the last one counts.
    NoSeqCheck,
    /// What was spent is added to what was known.
    DeltaForMax,
    /// A raise is not bounded by what is left of the limit.
    NoRoomCap,
    /// A store that lost its data grants at once.
    NoRebuildHold,
    /// Nothing is held back for holders that do not return.
    NoFloor,
    /// What holders say that they were granted does not count.
    NoClaimMerge,
    /// A store that forgot what it had answered does not notice.
    NoVersionCheck,
    /// A holder that returns twice is counted twice.
    ReturnsTwice,
    /// A store gives back whatever it has on record, room or not.
    RecordWithoutRoom,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 9] = [
        Fault::NoSeqCheck,
        Fault::DeltaForMax,
        Fault::NoRoomCap,
        Fault::NoRebuildHold,
        Fault::NoFloor,
        Fault::NoClaimMerge,
        Fault::NoVersionCheck,
        Fault::ReturnsTwice,
        Fault::RecordWithoutRoom,
    ];
}
