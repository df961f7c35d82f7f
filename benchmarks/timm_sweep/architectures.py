"""The architectures of the sweep: one or a few small members of each family of timm."""

from __future__ import annotations

_CONVOLUTIONAL = """
    resnet18 resnet18d mobilenetv3_small_100 lcnet_050 tf_efficientnet_b0 repvgg_a0 ghostnet_100
    mixnet_s efficientnet_lite0 tf_efficientnetv2_b0 mnasnet_small mobilenetv4_conv_small
    seresnext26d_32x4d ecaresnet26t resnetaa34d resnet50_gn lcnetv2_small mobileone_s0 convnext_atto
    vgg11 vgg11_bn regnetx_002 selecsls42 starnet_s1 fasternet_t0 tinynet_e gernet_s
    legacy_seresnet18 ese_vovnet19b_dw seresnet18 skresnet18 resnetv2_18 mambaout_femto cs3darknet_s
    inception_next_atto hgnetv2_b0 convnextv2_atto repvit_m0_9 dla46_c resnest14d nf_resnet26
    rexnet_100 xception41 eca_nfnet_l0 test_efficientnet_gn dpn48b res2net50_14w_8s regnety_002
    mobilenetv2_050 semnasnet_075 test_nfnet test_efficientnet_ln test_efficientnet_evos
    convmixer_768_32 cspnext_tiny darknet17 convnext_zepto_rms tresnet_m inception_v3 densenet121
    hrnet_w18_small legacy_xception ghostnetv2_100 ghostnetv3_050 repghostnet_050 rdnet_tiny
    inception_v4 cspresnet50 fbnetv3_b resnext26ts eca_resnext26ts gcresnext26ts nf_regnet_b0
    tf_mobilenetv3_small_minimal_100 spnasnet_100 fbnetc_100 hardcorenas_a tf_mixnet_s vovnet39a
    regnetz_b16 gcresnet33ts resnest26d dla34 hgnet_tiny rexnetr_100 resnetv2_50d_evos seresnet33ts
    dla60_res2net res2next50 xception41p dpn68 densenetblur121d skresnext50_32x4d
    inception_resnet_v2 pnasnet5large nasnetalarge
"""
_OTHER = """
    vit_tiny_patch16_224 deit_tiny_patch16_224 swin_tiny_patch4_window7_224 mixer_s32_224
    mobilevit_xxs levit_128s poolformer_s12 pit_ti_224 pvt_v2_b0 visformer_tiny
    botnet26t_256 efficientvit_b0 edgenext_xx_small efficientformer_l1 resmlp_12_224
    fastvit_t8 shvit_s1 coat_lite_tiny convit_tiny gmlp_ti16_224 nest_tiny swiftformer_xs
    cpubone_nano iformer_t eva02_tiny_patch14_224 twins_svt_small tiny_vit_5m_224 efficientvim_m1
    lambda_resnet26t caformer_s18 hiera_tiny_224 xcit_nano_12_p16_224 crossvit_tiny_240
    coatnet_pico_rw_224 mobilevitv2_050 lowformer_b0 vit_relpos_small_patch16_224 volo_d1_224
    focalnet_tiny_srf vitamin_small_224 mvitv2_tiny tnt_s_legacy_patch16_224 vit_tiny_r_s16_p8_224
    swinv2_tiny_window8_256 swinv2_cr_tiny_224 efficientformerv2_s0 cait_xxs24_224 hieradet_small
    nextvit_small sequencer2d_s maxvit_rmlp_pico_rw_256 halonet26t efficientvit_m0
    davit_tiny gcvit_xxtiny mobilenetv4_hybrid_medium csatv2 levit_conv_128s convformer_s18
    twins_pcpvt_small beit_base_patch16_224 bat_resnext26ts naflexvit_base_patch16_gap
    samvit_base_patch16_224
"""
CONVOLUTIONAL = tuple(_CONVOLUTIONAL.split())
"""Networks of convolutions; linear layers, gates and normalization of any kind may be in them."""
OTHER = tuple(_OTHER.split())
"""Networks with attention, mixing of tokens or recurrence."""


def in_turn() -> tuple[str, ...]:
    """Return all architectures, two convolutional ones before each of the others."""
    first, second = list(CONVOLUTIONAL), list(OTHER)
    order: list[str] = []
    while first or second:
        order += first[:2] + second[:1]
        del first[:2], second[:1]
    return tuple(order)
