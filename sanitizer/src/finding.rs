//! What was found.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use naga::Span;

/// What sort of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Two accesses to one place, one of them a write, that no barrier orders.
    Race,
    /// An index past the end: of an array in workgroup memory or of a variable, or of a write to a
    /// buffer.
    OutOfBounds,
    /// A read past the end of a buffer. WebGPU has it give 0 or something else of the buffer; other
    /// APIs promise nothing.
    ReadPastEnd,
    /// A read of memory that nothing has written.
    Unwritten,
    /// A barrier that not all invocations of the workgroup reach together.
    DivergentBarrier,
    /// A subgroup operation that reads an invocation which takes no part in it, be the value used
    /// or not; or that needs one to write.
    InactiveLane,
    /// A shift by as many bits as the number has, or more.
    Shift,
    /// An integer divided by zero.
    Division,
    /// A float made an integer that cannot hold it.
    Conversion,
    /// A loop that does not end.
    EndlessLoop,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Race => "data race",
            Self::OutOfBounds => "access out of bounds",
            Self::ReadPastEnd => "read past the end of a buffer",
            Self::Unwritten => "read of memory that nothing has written",
            Self::DivergentBarrier => "barrier that not all invocations reach",
            Self::InactiveLane => "subgroup operation that reads an invocation which takes no part",
            Self::Shift => "shift by too many bits",
            Self::Division => "integer division by zero",
            Self::Conversion => "conversion to an integer that cannot hold the value",
            Self::EndlessLoop => "loop without an end",
        })
    }
}

/// A fault of a shader, where it was seen first.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What sort of fault.
    pub kind: Kind,
    /// Where in the text.
    span: Span,
    /// The other access of a race.
    other: Option<Span>,
    /// Number of the workgroup, and place of the invocation in it.
    pub invocation: [u32; 2],
    /// The same of the other access of a race.
    pub other_invocation: Option<[u32; 2]>,
}

impl Finding {
    /// The line of the shader's text, counted from 1; 0 if this is another text.
    #[must_use]
    pub fn line(&self, source: &str) -> u32 {
        line_of(self.span, source)
    }

    /// Of a race, the line of the other access.
    #[must_use]
    pub fn other_line(&self, source: &str) -> Option<u32> {
        self.other.map(|span| line_of(span, source))
    }

    /// In words, with the lines of the text.
    #[must_use]
    pub fn describe(&self, source: &str) -> String {
        let text = |line: u32| {
            source.lines().nth(line.saturating_sub(1) as usize).unwrap_or("").trim().to_owned()
        };
        let [workgroup, lane] = self.invocation;
        let line = self.line(source);
        let mut words = format!(
            "{}, line {line}, invocation {lane} of workgroup {workgroup}: {}",
            self.kind,
            text(line)
        );
        if let (Some(line), Some([workgroup, lane])) =
            (self.other_line(source), self.other_invocation)
        {
            words += &format!(
                "\n  and line {line}, invocation {lane} of workgroup {workgroup}: {}",
                text(line)
            );
        }
        words
    }
}

fn line_of(span: Span, source: &str) -> u32 {
    let is_inside = span.to_range().is_some_and(|range| source.get(range).is_some());
    if is_inside { span.location(source).line_number } else { 0 }
}

/// Bytes of the text.
type Place = Option<Range<usize>>;

/// Findings, each once.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    all: Vec<Finding>,
    seen: HashSet<(Kind, Place, Place)>,
}

impl Findings {
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        span: Span,
        invocation: [u32; 2],
        other: Option<(Span, [u32; 2])>,
    ) {
        let mut places = [span.to_range(), other.and_then(|other| other.0.to_range())];
        // Two accesses that race are the same two in any order.
        places.sort_by_key(|place| place.as_ref().map(|range| range.start));
        let [first, second] = places;
        let key = (kind, first, second);
        if self.seen.insert(key) {
            self.all.push(Finding {
                kind,
                span,
                other: other.map(|other| other.0),
                invocation,
                other_invocation: other.map(|other| other.1),
            });
        }
    }

    pub(crate) fn into_all(self) -> Vec<Finding> {
        self.all
    }
}
