//! Inventory files: how they are read.

use super::document::SourceError;
use super::inventory_toml::{self, InventoryFragment};
use super::last_good::Kind;
use super::limits::MAX_FILE_SIZE;
use super::tracked_files::Fragment;

impl Fragment for InventoryFragment {
    const KIND: Kind = Kind::Inventory;
    const EXTENSIONS: &'static [&'static str] = &["toml"];

    fn max_size(_: &str) -> usize {
        MAX_FILE_SIZE
    }

    fn parse(file_name: &str, text: &str) -> Result<Self, Vec<SourceError>> {
        inventory_toml::parse(file_name, text)
    }

    fn warnings(&self) -> &[SourceError] {
        &self.warnings
    }

    fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.workloads.is_empty() && self.nodes.is_empty()
    }

    fn reuse_equal(&mut self, older: &Self) {
        Self::reuse_equal(self, older);
    }
}
