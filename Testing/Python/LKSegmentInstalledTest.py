# -*- i18n: disabled -*-
"""Run by the real application through CTest: what was packaged is complete and starts without torch."""

import sys
import unittest
from pathlib import Path

import slicer


class LKSegmentInstalledTest(unittest.TestCase):
    def test_the_module_is_loaded(self) -> None:
        self.assertTrue(hasattr(slicer.modules, "lksegment"))
        self.assertEqual(slicer.modules.lksegment.title, "LKSegment")

    def test_the_library_is_the_packaged_one(self) -> None:
        import LKSegmentLib

        beside_the_module = Path(slicer.modules.lksegment.path).parent / "LKSegmentLib"
        self.assertEqual(Path(LKSegmentLib.__file__).resolve().parent, beside_the_module.resolve())

    def test_the_built_in_models_are_packaged(self) -> None:
        from LKSegmentLib.packages import catalogue

        self.assertTrue(catalogue.built_in_folder().is_dir(), str(catalogue.built_in_folder()))
        self.assertEqual(catalogue.broken_packages(), [])
        self.assertTrue([entry for entry in catalogue.catalogue() if entry.built_in])

    def test_opening_the_panel_imports_no_torch(self) -> None:
        was_there = "torch" in sys.modules
        self.assertIsNotNone(slicer.util.getModuleWidget("LKSegment"))
        self.assertEqual("torch" in sys.modules, was_there)
