"""Every sentence on a verdict, a waiver or a finding. All other rooms pass data."""
