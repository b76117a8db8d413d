"""ParC backbones, one file a family, each on mmpretrain's own class where there is one."""
