//! The expressions of a file that a switch can take the place of.
//!
//! A switch is a macro call, so it replaces one whole expression: in `a + b * c` that can be `b * c`,
//! but not `a + b`. It reads a variable, so it cannot stand where the compiler wants a
//! constant. Code in the arguments of macros is not looked at.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context as _, Result};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// What may be done with an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Plain,
    /// It is the short form of a field in a struct literal, which names it too.
    Field,
    /// It is a statement without a semicolon, which a macro call needs in its place.
    Statement,
    /// The compiler evaluates it.
    Constant,
    /// It binds names for what follows it.
    Binding,
}

/// Every expression of a file, by the bytes it takes.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    found: HashMap<Range<usize>, Kind>,
    constant: bool,
}

impl Expressions {
    pub(super) fn of(text: &str) -> Result<Self> {
        let file = syn::parse_file(text).context("is no Rust that can be parsed")?;
        let mut expressions = Self::default();
        expressions.visit_file(&file);
        Ok(expressions)
    }

    pub(super) fn at(&self, bytes: &Range<usize>) -> Option<Kind> {
        self.found.get(bytes).copied()
    }

    fn in_constant(&mut self, inside: bool, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.constant, inside);
        visit(self);
        self.constant = outside;
    }
}

/// Whether `text` is one expression.
pub(super) fn is_expression(text: &str) -> bool {
    syn::parse_str::<syn::Expr>(text).is_ok()
}

fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Expressions {
    fn visit_expr(&mut self, expression: &'ast syn::Expr) {
        let kind = match expression {
            _ if self.constant => Kind::Constant,
            _ if binds(expression) => Kind::Binding,
            _ => Kind::Plain,
        };
        // A statement or field was found before the expression it consists of.
        self.found
            .entry(expression.span().byte_range())
            .or_insert(kind);
        visit::visit_expr(self, expression);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        let rest = block.stmts.iter().rev().skip(1);
        for statement in rest {
            if let syn::Stmt::Expr(expression, None) = statement
                && !self.constant
            {
                self.found
                    .insert(expression.span().byte_range(), Kind::Statement);
            }
        }
        visit::visit_block(self, block);
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if field.colon_token.is_none() && !self.constant {
            self.found.insert(field.span().byte_range(), Kind::Field);
        }
        visit::visit_field_value(self, field);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let constant = item.sig.constness.is_some();
        self.in_constant(constant, |this| visit::visit_item_fn(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let constant = item.sig.constness.is_some();
        self.in_constant(constant, |this| visit::visit_impl_item_fn(this, item));
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.in_constant(true, |this| visit::visit_item_const(this, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.in_constant(true, |this| visit::visit_impl_item_const(this, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.in_constant(true, |this| visit::visit_trait_item_const(this, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.in_constant(true, |this| visit::visit_item_static(this, item));
    }

    fn visit_expr_const(&mut self, block: &'ast syn::ExprConst) {
        self.in_constant(true, |this| visit::visit_expr_const(this, block));
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
        self.in_constant(true, |this| this.visit_expr(&repeat.len));
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.in_constant(true, |this| visit::visit_type_array(this, array));
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.in_constant(true, |this| visit::visit_variant(this, variant));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(file: &str, piece: &str) -> Option<Kind> {
        let start = file.find(piece).unwrap();
        let expressions = Expressions::of(file).unwrap();
        expressions.at(&(start..start + piece.len()))
    }

    #[test]
    fn only_whole_expressions_can_be_replaced() {
        let file = "fn f() { let x = a + b * c; g(x.y) }";
        for whole in ["a + b * c", "b * c", "a", "g(x.y)", "x.y"] {
            assert_eq!(kind(file, whole), Some(Kind::Plain), "{whole}");
        }
        for part in ["a + b", "x = a", "y", "let x = a + b * c;"] {
            assert_eq!(kind(file, part), None, "{part}");
        }
    }

    #[test]
    fn the_short_form_of_a_field_is_told_apart() {
        assert_eq!(
            kind("fn f() -> S { S { field } }", "field"),
            Some(Kind::Field)
        );
        assert_eq!(
            kind("fn f() -> S { S { field: x } }", "x"),
            Some(Kind::Plain)
        );
    }

    #[test]
    fn what_the_compiler_evaluates_is_told_apart() {
        for file in [
            "const N: u32 = here;",
            "const fn f() -> u32 { g(here) }",
            "impl S { const N: u32 = here; }",
            "static S: u32 = here;",
            "fn f() -> [u8; 4] { [0; here] }",
            "enum E { A = here }",
        ] {
            assert_eq!(kind(file, "here"), Some(Kind::Constant), "{file}");
        }
        let file = "const fn g() { fn f() { here } }";
        assert_eq!(kind(file, "here"), Some(Kind::Plain));
    }

    #[test]
    fn statements_and_bindings_are_told_apart() {
        let file = "fn f() { if a { b(); } if let Some(x) = c && d { x } else { e } }";
        assert_eq!(kind(file, "if a { b(); }"), Some(Kind::Statement));
        assert_eq!(kind(file, "let Some(x) = c && d"), Some(Kind::Binding));
        assert_eq!(kind(file, "d"), Some(Kind::Plain));
        assert_eq!(
            kind(file, "if let Some(x) = c && d { x } else { e }"),
            Some(Kind::Plain)
        );
    }
}
