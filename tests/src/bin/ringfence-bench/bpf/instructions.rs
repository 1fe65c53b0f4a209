//! An assembler for the few BPF instructions that the benchmark's programs use.
//!
//! Each function returns one instruction in the layout of `struct bpf_insn`; [`Code`] collects them
//! and resolves jumps. The kernel's verifier checks the programs.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result};

/// An encoded instruction.
pub(super) type Instruction = [u8; 8];

/// A register. A call takes its arguments in R1 to R5, returns its result in R0 and preserves R6 to
/// R9.
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
    /// The frame pointer: the stack is below it.
    R10,
}

/// The size of a load or store.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Width {
    One = 0x10,
    Two = 0x08,
    Four = 0x00,
    Eight = 0x18,
}

/// The condition of a jump; registers are compared as unsigned numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Always,
    Equals(Register, i32),
    Differs(Register, i32),
    Above(Register, Register),
}

/// A kernel helper function by its number.
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

/// `to` = memory at `from + offset`.
pub(super) const fn load(width: Width, to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x61 | width as u8, to, from, offset, 0)
}

/// Memory at `to + offset` = `from`.
pub(super) const fn store(width: Width, to: Register, offset: i16, from: Register) -> Instruction {
    instruction(0x63 | width as u8, to, from, offset, 0)
}

/// The eight bytes at `to + offset` = 0.
pub(super) const fn clear(to: Register, offset: i16) -> Instruction {
    instruction(0x7a, to, Register::R0, offset, 0)
}

/// Calls a helper.
pub(super) const fn call(helper: Helper) -> Instruction {
    instruction(0x85, Register::R0, Register::R0, 0, helper as i32)
}

/// Returns R0.
pub(super) const fn exit() -> Instruction {
    instruction(0x95, Register::R0, Register::R0, 0, 0)
}

/// `to` = address of a map; takes two instruction slots.
pub(super) fn map(to: Register, map: BorrowedFd<'_>) -> [Instruction; 2] {
    [
        // R1 as source register (`BPF_PSEUDO_MAP_FD`): the value is a map's file descriptor.
        instruction(0x18, to, Register::R1, 0, map.as_raw_fd()),
        [0; 8],
    ]
}

/// A jump target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program under construction.
#[derive(Debug, Default)]
pub(super) struct Code {
    instructions: Vec<Instruction>,
    /// Positions of labels that are bound.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, When, Label)>,
}

impl Code {
    /// Appends instructions.
    pub(super) fn emit(&mut self, instructions: &[Instruction]) {
        self.instructions.extend(instructions);
    }

    /// Creates a label, which is not bound yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds a label to the current position.
    pub(super) fn bind(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.instructions.len());
        }
    }

    /// Appends a forward jump.
    pub(super) fn jump(&mut self, when: When, to: Label) {
        self.jumps.push((self.instructions.len(), when, to));
        self.instructions.push([0; 8]);
    }

    /// Resolves the jumps and returns the instructions.
    pub(super) fn finish(mut self) -> Result<Vec<Instruction>> {
        for (from, when, Label(label)) in self.jumps {
            let to = self.labels.get(label).copied().flatten();
            let to = to.context("a jump to a label that is not bound")?;
            let offset = i16::try_from(to.checked_sub(from + 1).context("a backward jump")?)?;
            let jump = match when {
                When::Always => instruction(0x05, Register::R0, Register::R0, offset, 0),
                When::Equals(left, right) => instruction(0x15, left, Register::R0, offset, right),
                When::Differs(left, right) => instruction(0x55, left, Register::R0, offset, right),
                When::Above(left, right) => instruction(0x2d, left, right, offset, 0),
            };
            *self
                .instructions
                .get_mut(from)
                .context("a jump out of range")? = jump;
        }
        Ok(self.instructions)
    }
}
