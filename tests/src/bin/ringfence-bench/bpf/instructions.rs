//! An assembler for the few instructions that the benchmark's own programs are made of.
//!
//! Each function gives one instruction in the layout of `struct bpf_insn`; [`Code`] puts them one after
//! the other and finds out how far jumps go. Whether a program is sound is the kernel's to say.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result};

/// An instruction as the kernel takes it.
pub(super) type Instruction = [u8; 8];

/// A register. A call takes its arguments in R1 to R5, leaves its result in R0 and keeps R6 to R9.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R9,
    /// The end of the stack, which lies below.
    R10,
}

/// How much is loaded or stored.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Width {
    One = 0x10,
    Two = 0x08,
    Four = 0x00,
    Eight = 0x18,
}

/// When a jump is taken, by registers as unsigned numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Always,
    Equals(Register, i32),
    Differs(Register, i32),
    Above(Register, Register),
}

/// A function of the kernel, by its number.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(super) enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    RingOutput = 130,
}

const fn instruction(
    code: u8,
    to: Register,
    from: Register,
    offset: i16,
    value: i32,
) -> Instruction {
    let (to, from) = (to as u8, from as u8);
    let registers = if cfg!(target_endian = "little") {
        from << 4 | to
    } else {
        to << 4 | from
    };
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = value.to_ne_bytes();
    [code, registers, a, b, c, d, e, f]
}

/// `to = value`.
pub(super) const fn set(to: Register, value: i32) -> Instruction {
    instruction(0xb7, to, Register::R0, 0, value)
}

/// `to = from`.
pub(super) const fn copy(to: Register, from: Register) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `to += value`.
pub(super) const fn add(to: Register, value: i32) -> Instruction {
    instruction(0x07, to, Register::R0, 0, value)
}

/// `to` is what lies at `from + offset`.
pub(super) const fn load(width: Width, to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x61 | width as u8, to, from, offset, 0)
}

/// What lies at `to + offset` is `from`.
pub(super) const fn store(width: Width, to: Register, offset: i16, from: Register) -> Instruction {
    instruction(0x63 | width as u8, to, from, offset, 0)
}

/// The eight bytes at `to + offset` are zero.
pub(super) const fn clear(to: Register, offset: i16) -> Instruction {
    instruction(0x7a, to, Register::R0, offset, 0)
}

/// Calls the kernel.
pub(super) const fn call(helper: Helper) -> Instruction {
    instruction(0x85, Register::R0, Register::R0, 0, helper as i32)
}

/// Returns R0.
pub(super) const fn exit() -> Instruction {
    instruction(0x95, Register::R0, Register::R0, 0, 0)
}

/// `to` is a map; it takes the place of two instructions.
pub(super) fn map(to: Register, map: BorrowedFd<'_>) -> [Instruction; 2] {
    [
        // R1 as source: the value is the descriptor of a map.
        instruction(0x18, to, Register::R1, 0, map.as_raw_fd()),
        [0; 8],
    ]
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Instructions in a row.
#[derive(Debug, Default)]
pub(super) struct Code {
    instructions: Vec<Instruction>,
    /// Where labels are, once that is known.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, When, Label)>,
}

impl Code {
    /// Adds instructions.
    pub(super) fn run(&mut self, instructions: &[Instruction]) {
        self.instructions.extend(instructions);
    }

    /// A label that is nowhere yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// A label is here.
    pub(super) fn here(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.instructions.len());
        }
    }

    /// Adds a jump forwards.
    pub(super) fn jump(&mut self, when: When, to: Label) {
        self.jumps.push((self.instructions.len(), when, to));
        self.instructions.push([0; 8]);
    }

    /// The instructions, with every jump where it leads.
    pub(super) fn finish(mut self) -> Result<Vec<Instruction>> {
        for (from, when, Label(label)) in self.jumps {
            let to = self.labels.get(label).copied().flatten();
            let to = to.context("a jump to nowhere")?;
            let offset = i16::try_from(to.checked_sub(from + 1).context("a jump backwards")?)?;
            let jump = match when {
                When::Always => instruction(0x05, Register::R0, Register::R0, offset, 0),
                When::Equals(left, right) => instruction(0x15, left, Register::R0, offset, right),
                When::Differs(left, right) => instruction(0x55, left, Register::R0, offset, right),
                When::Above(left, right) => instruction(0x2d, left, right, offset, 0),
            };
            *self.instructions.get_mut(from).context("a jump")? = jump;
        }
        Ok(self.instructions)
    }
}
