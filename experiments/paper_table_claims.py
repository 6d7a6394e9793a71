"""The claims about the paper's tables, in their order, each with the rule by which our results are held against it."""

from __future__ import annotations

from experiments import paper_table_judges as judges
from experiments import paper_transfer_judges as transfer
from experiments.paper_statistics import CLEAR_POINTS
from experiments.paper_table_judges import ALIKE, CLOSER, LITTLE, member_errors, variant_errors
from experiments.paper_transfer_judges import ALIKE_PERCENT, CALTECH101, CALTECH256, CALTECH_CLASSES
from experiments.paper_verdicts import Claim

OVER_SHARES = "two-proportion test over the validation images, as if each net had seen others"
OVER_FOLDS = (
    "t-test of paired folds, corrected for the images that they share (Nadeau and Bengio); one fold: larger by "
    f"{CLEAR_POINTS:g} points at least: holds; smaller by as many: does not hold; between: not shown"
)
ONE_SAMPLE = OVER_FOLDS.replace("paired ", "")
WIDE = "conv3,4,5 of 512,1024,512"

CORRESPONDENCE = (
    Claim(
        "Table 1",
        "In layer 5 eyes and nose correspond more consistently between images than random places do.",
        ".067, .069, .079 against .107",
        "every part's score is lower than that of random places, and than those of places that are the same in all "
        "pictures (permutation tests; largest p-value). Of these there are 39, and they may lie on other parts: each "
        "part has to come first of all. No contrary is tested: it holds or is not shown",
        judges.parts_correspond("conv5"),
    ),
    Claim(
        "Table 1",
        "In layer 7 parts and random places score more alike.",
        ".069, .068, .069 against .073",
        f"the parts' mean, over that of random places, is nearer to 1 than in layer 5 by {CLOSER:g} at least: holds; "
        "further from it by as much: does not hold; between: not shown",
        judges.parts_gain_less_above,
    ),
)
ERRORS = (
    Claim(
        "Table 2",
        "Ten crops averaged, the paper's protocol, err less than the centre crop.",
        "not reported",
        f"the average of ten crops errs less ({OVER_SHARES})",
        judges.ten_crops_help,
    ),
    Claim(
        "Table 2",
        "Averaging several networks reduces the error.",
        "38.4 % one, 36.7 % five, 36.0 % six",
        f"the average errs less than the best of its members ({OVER_SHARES})",
        judges.averaging_helps,
    ),
    Claim(
        "Table 2",
        "The network of Fig. 3 errs less than that of Krizhevsky et al.",
        "38.4 against 40.5 %",
        f"zfnet errs less than alexnet, of ten crops ({OVER_SHARES})",
        judges.errs_less(member_errors, "zfnet", "alexnet"),
    ),
    Claim(
        "Table 2",
        "With 512, 1024, 512 maps in layers 3, 4, 5 it errs still less.",
        "37.5 against 38.4 %",
        f"errs less than zfnet, of ten crops ({OVER_SHARES})",
        judges.errs_less(member_errors, "zfnet-conv3+4+5-of-512+1024+512", "zfnet"),
    ),
)
ARCHITECTURES = (
    Claim(
        "Table 3",
        "Removing both the middle convolutional and the fully connected layers hurts most: depth matters.",
        "71.3 % against 40.5, 45.4, 44.8 %",
        f"errs more than the whole net, and than without either ({OVER_SHARES})",
        judges.depth_matters,
    ),
    *(
        Claim(
            "Table 3",
            f"Removing {what} alone costs little.",
            f"{number} against 40.5 %",
            f"errs less than {LITTLE:.0%} of the images more than the whole net ({OVER_SHARES})",
            judges.costs_little(f"alexnet, no {layers}", "alexnet"),
        )
        for what, number, layers in (
            ("the fully connected layers 6 and 7", "44.8", "fc6,7"),
            ("the middle convolutional layers 3 and 4", "45.4", "conv3,4"),
        )
    ),
    Claim(
        "Table 3",
        "The sizes of the fully connected layers matter little.",
        "+1.2, -0.5, +1.8, +0.4 points",
        f"of both nets, with layers half and twice as wide, the error differs by less than {100 * ALIKE:g} points "
        f"({OVER_SHARES})",
        judges.sizes_matter_little(
            *((f"{net}, fc6,7 of {size}", net) for net in ("alexnet", "zfnet") for size in (2048, 8192))
        ),
    ),
    Claim(
        "Table 3",
        "Wider middle convolutional layers help.",
        "37.5 against 38.4 %",
        f"with 512, 1024, 512 maps zfnet errs less ({OVER_SHARES})",
        judges.errs_less(variant_errors, f"zfnet, {WIDE}", "zfnet"),
    ),
    Claim(
        "Table 3",
        "Wider fully connected layers beside them overfit.",
        "38.3 against 37.5 %",
        f"with both zfnet errs more than with 512, 1024, 512 maps alone ({OVER_SHARES})",
        judges.errs_less(variant_errors, f"zfnet, {WIDE}", "zfnet, both"),
    ),
    Claim(
        "Table 3",
        "The network of Fig. 3 errs less than that of Krizhevsky et al.",
        "38.4 against 40.5 %",
        f"zfnet errs less than alexnet ({OVER_SHARES})",
        judges.errs_less(variant_errors, "zfnet", "alexnet"),
    ),
    Claim(
        "Table 3",
        "The order of the variants.",
        "validation top-1 error",
        "Spearman's rank correlation with the paper's order is above 0 (permutation tests of it and of the contrary)",
        judges.same_order,
    ),
)
TRANSFER = (
    *(
        Claim(source, says, numbers, f"at every number of images measured, largest p-value ({test})", judge)
        for source, scratch, earlier in (
            (
                CALTECH101,
                "83.8 against 22.8 % (15), 86.5 against 46.5 % (30)",
                "83.8 against 81.4 % (15), 86.5 against 84.3 % (30)",
            ),
            (
                CALTECH256,
                "65.7 against 9.0 % (15) to 74.2 against 38.8 % (60)",
                "65.7 against 40.5 % (15) to 74.2 against 55.2 % (60)",
            ),
        )
        for says, numbers, test, judge in (
            (
                "Features of the pretrained network beat training from scratch at every number of images.",
                scratch,
                OVER_FOLDS,
                transfer.pretrained_beats_scratch,
            ),
            (
                "Features of the pretrained network beat the best earlier method.",
                earlier,
                f"{ONE_SAMPLE}; fewer than {CALTECH_CLASSES[source]} classes: not shown",
                transfer.beats_the_best_earlier,
            ),
        )
    ),
    Claim(
        CALTECH256,
        "Six images per class beat what the best earlier method reached with sixty.",
        "above 55.2 %",
        f"the accuracy with six is above {transfer.EARLIER_CALTECH256} % ({ONE_SAMPLE}; fewer than "
        f"{CALTECH_CLASSES[CALTECH256]} classes: not shown)",
        transfer.few_images_suffice,
    ),
    Claim(
        "Table 6",
        "A softmax on layer 7 comes near the best methods for PASCAL, whose photos are quite unlike ImageNet's.",
        "79.0 % on the test set; earlier 74.3, 82.2 %",
        f"mean average precision of {transfer.SANDE} % or more, the lower of the earlier methods: holds; "
        f"{transfer.SANDE - transfer.FAR_BELOW:.1f} % or less: does not hold; between: not shown",
        transfer.average_precision,
    ),
)
LAYERS = (
    Claim(
        "Table 7",
        "Each layer up to the fifth gives more discriminative features than the one below.",
        "44.8, 66.2, 72.3, 76.6, 86.2 % (Caltech-101)",
        f"the accuracy of a linear SVM rises from each of layers 1 to 5 to the next ({OVER_FOLDS})",
        transfer.higher_layers_are_better,
    ),
    Claim(
        "Table 7",
        "Layer 7 does as well as layer 5, or better.",
        "85.5 against 86.2 % (Caltech-101), 71.7 against 65.6 % (256)",
        f"a linear SVM on layer 7 is less than {ALIKE_PERCENT:g} points below one on layer 5 ({OVER_FOLDS})",
        transfer.top_layer_is_as_good,
    ),
    Claim(
        "Table 7",
        "On layer 7 a linear SVM and a softmax do alike.",
        "85.5 and 85.4 % (Caltech-101), 71.7 and 72.6 % (256)",
        f"they differ by less than {ALIKE_PERCENT:g} points ({OVER_FOLDS.partition('; one fold')[0]}; one fold: by "
        f"{CLEAR_POINTS:g} points or more: does not hold; less: not shown)",
        transfer.classifiers_agree,
    ),
)
TABLES = (*CORRESPONDENCE, *ERRORS, *ARCHITECTURES, *TRANSFER, *LAYERS)
