//! Flags for where models are.

use std::path::PathBuf;

use clap::Args;
use weights::Home;

#[derive(Clone, Debug, Args)]
pub(crate) struct Models {
    /// Folder whose `models/` holds the fetched models [default: `syncdiffusion` in `$XDG_DATA_HOME` or
    /// `~/.local/share`]
    #[arg(long, env = "SYNCDIFFUSION_HOME")]
    home: Option<PathBuf>,
    #[arg(long, env = "XDG_DATA_HOME", hide = true)]
    xdg_data_home: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true)]
    user_home: Option<PathBuf>,
}

impl Models {
    /// The folder of models.
    pub(crate) fn home(&self) -> Home {
        Home::new(self.home.clone(), self.xdg_data_home.clone(), self.user_home.clone())
    }
}
